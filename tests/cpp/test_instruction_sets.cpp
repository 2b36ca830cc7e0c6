// Every instruction set computes the bits of the baseline, from any bits.
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "check.hpp"
#include "cpu/instruction_set.hpp"

using namespace adacache;

namespace {

constexpr DType kFloats[] = {DType::kFloat32, DType::kBFloat16, DType::kFloat16};
constexpr std::int64_t kMost = 1000;

using Memory = std::vector<unsigned char>;

// Any bits, including subnormal numbers, infinities and NaN.
Memory random_memory(unsigned seed) {
  std::mt19937 generator(seed);
  Memory memory(kMost * 4);
  for (unsigned char& byte : memory) byte = static_cast<unsigned char>(generator());
  return memory;
}

// Finite numbers only: the highest bit of every exponent is cleared.
Memory finite_memory(unsigned seed) {
  Memory memory = random_memory(seed);
  for (unsigned char& byte : memory) byte &= 0xbf;
  return memory;
}

bool is_nan(const unsigned char* element, DType dtype) {
  if (size_of(dtype) == 1) return false;  // A written number is no NaN; its bits are compared.
  std::uint32_t bits = 0;
  std::memcpy(&bits, element, size_of(dtype));
  if (dtype == DType::kFloat32) return (bits & 0x7fffffffu) > 0x7f800000u;
  return (bits & 0x7fffu) > (dtype == DType::kBFloat16 ? 0x7f80u : 0x7c00u);
}

bool same(const Memory& a, const Memory& b, DType dtype) {
  const std::int64_t width = size_of(dtype);
  for (std::size_t i = 0; i < a.size(); i += width) {
    const bool both_nan = is_nan(&a[i], dtype) && is_nan(&b[i], dtype);
    if (!both_nan && std::memcmp(&a[i], &b[i], width) != 0) return false;
  }
  return true;
}

bool same(const UpdateSums& a, const UpdateSums& b) {
  const auto *left = a.first.part, *right = b.first.part;
  bool all = true;
  for (std::size_t i = 0; i < sizeof a / sizeof *left; ++i)
    all &= left[i] == right[i] || (std::isnan(left[i]) && std::isnan(right[i]));
  return all;
}

void check_update(const Kernels& kernels, DType slot_dtype, DType dtype, Sums sums, int terms,
                  std::int64_t count) {
  Memory memory[5], slots[2];
  for (int i = 0; i < 5; ++i) memory[i] = random_memory(i);
  UpdateSums results[2] = {};
  for (int i = 0; i < 2; ++i) {
    slots[i] = random_memory(9);
    const Run slot{slots[i].data(), slot_dtype};
    Update update{};
    update.slot = slot;
    update.x_out = {memory[0].data(), dtype};
    update.x_in = {memory[1].data(), dtype};
    update.sums = sums;
    update.terms = terms;
    for (int t = 0; t < terms; ++t) {
      update.term[t] = t == terms - 1 ? slot : Run{memory[2].data() + 4 * t, dtype};
      update.coefficient[t] = 0.7f - static_cast<float>(t);
    }
    update.earlier = {memory[3].data(), slot_dtype};
    update.with_size = true;
    (i == 0 ? kBaselineKernels : kernels).update(update, count, &results[i]);
  }
  CHECK(same(slots[0], slots[1], slot_dtype));
  CHECK(same(results[0], results[1]));
}

void check_add(const Kernels& kernels, DType dtype, DType stored, int terms, std::int64_t count) {
  Memory memory[4], x = random_memory(30), out[2];
  for (int i = 0; i < 4; ++i) memory[i] = random_memory(20 + i);
  for (int i = 0; i < 2; ++i) {
    out[i] = random_memory(31);
    Add add{};
    add.out = {out[i].data(), dtype};
    add.x = {x.data(), dtype};
    add.terms = terms;
    for (int t = 0; t < terms; ++t) {
      add.residual[t] = {memory[t].data(), stored};
      add.coefficient[t] = 1.3f - static_cast<float>(t);
      add.scale[t] = stored == DType::kInt8 ? 0.01f : 1.0f;
    }
    (i == 0 ? kBaselineKernels : kernels).add(add, count);
  }
  CHECK(same(out[0], out[1], dtype));
  CHECK(same(x, random_memory(30), dtype));
}

// The slot has eight bits, or the format of x.
void check_row(const Kernels& kernels, DType slot_dtype, DType term_dtype, DType dtype, Sums sums,
               bool finite, std::int64_t count) {
  const auto any = finite ? finite_memory : random_memory;
  Memory memory[5], slots[2];
  for (int i = 0; i < 5; ++i) memory[i] = any(40 + i);
  UpdateSums results[2] = {};
  Lanes changes[2] = {};
  float scales[2] = {}, p[kMost + kBlock];
  for (int i = 0; i < 2; ++i) {
    slots[i] = any(50);
    const Run slot{slots[i].data(), slot_dtype};
    const ScaledRun earlier{{memory[3].data(), slot_dtype}, 3};
    const Kernels& tried = i == 0 ? kBaselineKernels : kernels;
    RowUpdate update{};
    update.slot = slot;
    update.x_out = {memory[0].data(), dtype};
    update.x_in = {memory[1].data(), dtype};
    update.slot_scale = slot_dtype == dtype ? nullptr : &scales[i];
    update.sums = sums;
    update.terms = sums == Sums::kNone ? 0 : 2;
    update.term[0] = {{memory[2].data(), term_dtype}, 0.5f};
    update.term[1] = {slot, 0.1f};
    update.coefficient[0] = 0.7f;
    update.coefficient[1] = -0.3f;
    update.earlier = earlier;
    update.with_size = true;
    update.p = p;
    tried.update_row(update, count, &results[i]);
    tried.change_of_rows({slot, scales[i]}, earlier, count, &changes[i]);
  }
  CHECK(same(slots[0], slots[1], slot_dtype));
  CHECK(scales[0] == scales[1]);
  CHECK(same(results[0], results[1]));
  for (int lane = 0; lane < kLanes; ++lane) {
    const double left = changes[0].part[lane], right = changes[1].part[lane];
    CHECK(left == right || (std::isnan(left) && std::isnan(right)));
    CHECK(!finite || std::isfinite(left));
  }
}

void check_rows(const Kernels& kernels, DType dtype, std::int64_t count) {
  for (DType slot_dtype : {dtype, DType::kInt8, DType::kFloat8})
    for (DType term_dtype : {DType::kBFloat16, DType::kInt8, DType::kFloat8})
      for (Sums sums : {Sums::kNone, Sums::kL1, Sums::kL2, Sums::kCosine})
        for (bool finite : {false, true})
          check_row(kernels, slot_dtype, term_dtype, dtype, sums, finite, count);
}

void check(const Kernels& kernels) {
  for (std::int64_t count : {0, 1, 15, 16, 17, 31, 32, 33, 64, 500, 996})
    for (DType dtype : kFloats) {
      for (DType slot_dtype : kFloats)
        for (Sums sums : {Sums::kNone, Sums::kL1, Sums::kL2, Sums::kCosine})
          for (int terms = sums == Sums::kNone ? 0 : 1; terms <= (sums == Sums::kNone ? 0 : 4);
               ++terms)
            check_update(kernels, slot_dtype, dtype, sums, terms, count);
      for (DType stored : {dtype, DType::kInt8, DType::kFloat8})
        for (int terms = 1; terms <= 4; ++terms) check_add(kernels, dtype, stored, terms, count);
      check_rows(kernels, dtype, count);
    }
}

}  // namespace

int main() {
  CHECK(instruction_sets().front() == "baseline");
  for (const std::string& name : instruction_sets()) {
    set_instruction_set(name);
    CHECK(kernels().name == name);
    check(kernels());
  }
  return failures() > 0;
}
