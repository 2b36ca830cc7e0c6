// The life of an arena, in which each call of the driver fails once: A1, A6, and no leaks.
#include <string>
#include <vector>

#include "arena/arena.hpp"
#include "check.hpp"
#include "fake_driver.hpp"
#include "faults.hpp"

using namespace adacache;
using namespace adacache::arena;

namespace {

constexpr std::size_t kMiB = 1 << 20;

unsigned char* bytes_of(const Slot& slot) { return reinterpret_cast<unsigned char*>(slot.address); }

// Only the ends: with all bytes, the test took 50 s instead of 9.
void fill(const Slot& slot, int value) {
  bytes_of(slot)[0] = bytes_of(slot)[slot.bytes - 1] = static_cast<unsigned char>(value);
}

bool holds(const Slot& slot, int value) {
  return bytes_of(slot)[0] == value && bytes_of(slot)[slot.bytes - 1] == value;
}

void step(Lease& lease, const fake::Stream& stream) {
  lease.acquire(stream.id());
  stream.work();
  lease.mark(stream.id());
}

template <typename Call>
void refused(const Call& call) {
  bool thrown = false;
  try {
    call();
  } catch (const CaptureError&) {
    thrown = true;
  }
  CHECK(thrown);
}

void live(Arena& arena, const fake::Stream& first, const fake::Stream& second) {
  const auto lease = arena.lease();
  std::vector<Slot> slots = lease->grow({1000, 3 * kMiB}, first.id());
  fill(slots[0], 1);
  fill(slots[1], 2);
  step(*lease, first);
  const Slot third = lease->grow({6 * kMiB}, first.id()).at(0);
  fill(third, 3);
  CHECK(holds(slots[0], 1) && holds(slots[1], 2) && holds(third, 3));
  step(*lease, second);
  {
    fake::Capture capture(first);
    refused([&] { lease->grow({40 * kMiB}, first.id()); });
    refused([&] { lease->replan({kMiB}, first.id()); });
    refused([&] { step(*lease, first); });
    CHECK(capture.end());
  }
  slots[0] = lease->replan({kMiB}, first.id()).at(0);
  fill(slots[0], 4);
  CHECK(holds(slots[1], 2) && holds(third, 3));
  step(*lease, first);
  slots.clear();
  lease->release(first.id());
  fill(lease->grow({5 * kMiB}).at(0), 5);
}

// Checks the message of an exception; `in_life`: the arena existed.
void check_message(const std::string& said, const Fault& fault, bool in_life) {
  std::vector<std::string> parts{fault.function + " failed: ",
                                 "(" + std::to_string(fault.code) + ")"};
  if (in_life && fault.function.rfind("cuMem", 0) == 0)
    parts.insert(parts.end(), {"asked for ", " are mapped", "Of a budget of ", "reserved: "});
  for (const std::string& part : parts)
    if (!has(said, part)) {
      std::printf("%s", message("\"" + said + "\" lacks \"" + part + "\"", fault).c_str());
      CHECK(false);
    }
}

void check_fault(const Fault& fault, const fake::Stream& first, const fake::Stream& second) {
  const std::vector<Count> before = count_all();
  fake::reset();
  fake::set("FAIL", fault.text());
  bool made = false;
  try {
    Arena arena = Arena::on_cuda(0, 64 * kMiB, 4 * kMiB);
    made = true;
    try {
      live(arena, first, second);
    } catch (const Error& error) {
      check_message(error.what(), fault, true);
    }
    const std::string again = message_of<Error>([&] { live(arena, first, second); });
    // The fault may still be pending, if the first life ended before that call.
    if (!again.empty()) check_message(again, fault, true);
    const std::string at_last = message_of<Error>([&] { live(arena, first, second); });
    if (!at_last.empty()) std::printf("%s", message("still: " + at_last, fault).c_str());
    CHECK(at_last.empty());
    arena.close();
    CHECK(arena.stats().mapped == 0 && arena.stats().slots == 0 && arena.stats().leases == 0);
  } catch (const Error& error) {
    CHECK(!made);
    check_message(error.what(), fault, false);
  }
  fake::unset("FAIL");
  check_left(before, fault);
  tidy_thread();
}

std::vector<Fault> calls_of_a_life(const fake::Stream& first, const fake::Stream& second) {
  fake::reset();
  {
    Arena arena = Arena::on_cuda(0, 64 * kMiB, 4 * kMiB);
    live(arena, first, second);
    first.synchronize();
    second.synchronize();
  }
  return faults_of(fake::called(),
                   "cuStreamBeginCapture cuStreamEndCapture cuGraphDestroy cuStreamSynchronize");
}

void check_all(const fake::Stream& first, const fake::Stream& second) {
  int count = 0;
  for (Fault fault : calls_of_a_life(first, second))
    for (const int code : {2, 800, 999}) {
      fault.code = code;
      check_fault(fault, first, second);
      ++count;
    }
  std::printf("%d faults\n", count);
  CHECK(count > 300);
}

}  // namespace

int main() {
  const fake::Stream first, second;
  check_all(first, second);
  fake::set("VMM", "0");
  check_all(first, second);
  return failures() > 0;
}
