// distance_update where a residual is stored in eight bits: token by token, for all channels of a
// token share a scale. What is computed lies in rows of floats that stay in the first cache.
#include "quantized_update.hpp"

#include <cmath>
#include <cstring>
#include <memory>

#include "../half.hpp"
#include "../pool.hpp"
#include "instruction_set.hpp"
#include "pieces.hpp"
#include "sums.hpp"

namespace adacache {
namespace {

constexpr float kSmallestMaximum = 0x1p-100f;
constexpr std::uint32_t kInfinity = 0x7f800000u;

bool has_eight_bits(DType dtype) { return size_of(dtype) == 1; }

// Tokens that a task takes at once, in some frames or, to compare frames, in all.
struct Tokens {
  std::int64_t batch, first_frame, last_frame, first, last;
};

class QuantizedUpdate {
 public:
  explicit QuantizedUpdate(const DistanceUpdate& o)
      : o_(o), kernels_(kernels()), channels_(o.slot.size[3]), sums_(sums_of(o.metric)) {
    const auto& [batch, frames, tokens, channels] = o.slot.size;
    if (count_of(o.slot.size) == 0) return;
    const std::int64_t at_once = strides() > 0 ? frames : 1;
    tokens_per_task_ = std::max<std::int64_t>(1, kTaskSize / (at_once * channels));
    frames_per_task_ =
        strides() > 0 ? frames : std::max<std::int64_t>(1, kTaskSize / (tokens * channels));
    tasks_by_token_ = divided_up(tokens, tokens_per_task_);
    tasks_by_frame_ = divided_up(frames, frames_per_task_);
    row_ = divided_up(channels, kBlock) * kBlock;
  }

  void run(float* sums, int threads) const {
    const std::int64_t width = 3 + 2 * strides(), batch = o_.slot.size[0];
    const std::int64_t tasks = tasks_by_token_ * tasks_by_frame_;
    std::vector<double> partial(batch * tasks * width);
    const std::unique_ptr<float[]> scratch(new float[threads * kRows * row_]());
    parallel_for(batch * tasks, threads, [&](std::int64_t index, int worker) {
      run_task(task(index), partial.data() + index * width,
               Rows{scratch.get() + worker * kRows * row_, row_});
    });
    add_parts(partial.data(), batch, tasks, width, sums);
  }

 private:
  static constexpr int kRows = 3;
  struct Rows {
    float* memory;
    std::int64_t length;
    float* residual() const { return memory; }              // p, then what is stored of it
    float* forecast() const { return memory + length; }     // c
    float* earlier() const { return memory + 2 * length; }  // what is stored of an earlier frame
  };

  std::int64_t strides() const { return static_cast<std::int64_t>(o_.frame_strides.size()); }
  bool slot_is_term() const { return o_.slot_holds == SlotHolds::kPrevious; }
  std::int64_t terms() const {
    return static_cast<std::int64_t>(o_.previous.size()) + (slot_is_term() ? 1 : 0);
  }

  Tokens task(std::int64_t index) const {
    const std::int64_t token = index % tasks_by_token_ * tokens_per_task_;
    const std::int64_t frame = index / tasks_by_token_ % tasks_by_frame_ * frames_per_task_;
    return {index / (tasks_by_token_ * tasks_by_frame_), frame,
            std::min(frame + frames_per_task_, o_.slot.size[1]), token,
            std::min(token + tokens_per_task_, o_.slot.size[2])};
  }

  void run_task(const Tokens& task, double* sums, const Rows& rows) const {
    UpdateSums lanes{};
    for (std::int64_t token = task.first; token < task.last; ++token)
      for (std::int64_t frame = task.first_frame; frame < task.last_frame; ++frame)
        update_row(task.batch, frame, token, rows, lanes, sums + 3);
    sums[0] = total(lanes.first);
    sums[1] = total(lanes.second);
    sums[2] = total(lanes.third);
    if (strides() > 0) sums[3] = total(lanes.change);
  }

  void update_row(std::int64_t batch, std::int64_t frame, std::int64_t token, const Rows& rows,
                  UpdateSums& lanes, double* motion) const {
    const auto run = [&](const View& view) { return view.run(batch, frame, token, 0); };
    const Run x_in = o_.x_in ? run(*o_.x_in) : Run{};
    const std::uint32_t peak = kernels_.residual(run(o_.x_out), x_in, channels_, rows.residual());
    const std::int64_t count = terms();
    for (std::int64_t term = 0; term < count; ++term) add_term(term, batch, frame, token, rows);
    store(batch, frame, token, peak, rows);

    Update update{};
    update.slot = update.x_out = float_run(rows.residual());
    update.sums = count == 0 ? Sums::kNone : sums_;
    update.terms = count == 0 ? 0 : 1;
    update.term[0] = float_run(rows.forecast());
    update.coefficient[0] = 1;
    update.with_size = strides() > 0;
    if (strides() > 0 && frame >= o_.frame_strides[0])
      update.earlier = earlier(batch, frame - o_.frame_strides[0], token, rows);
    kernels_.update(update, channels_, &lanes);
    add_motion(batch, frame, token, rows, lanes, motion);
  }

  void add_term(std::int64_t term, std::int64_t batch, std::int64_t frame, std::int64_t token,
                const Rows& rows) const {
    const bool is_slot = term == static_cast<std::int64_t>(o_.previous.size());
    const View& view = is_slot ? o_.slot : o_.previous[term];
    const std::optional<View>& scale = is_slot ? o_.scale : o_.previous_scales[term];
    const float coefficient = o_.coefficients == nullptr ? 1 : o_.coefficients[term];
    kernels_.add_term(view.run(batch, frame, token, 0), scale_at(scale, batch, frame, token),
                      coefficient, term == 0, channels_, rows.forecast());
  }

  // Into the slot; what it holds of the residual then, back into its row.
  void store(std::int64_t batch, std::int64_t frame, std::int64_t token, std::uint32_t peak,
             const Rows& rows) const {
    const Run slot = o_.slot.run(batch, frame, token, 0);
    float scale = 1;
    if (o_.scale) {
      scale = narrow(slot, peak, rows);
      *static_cast<float*>(o_.scale->run(batch, frame, token, 0).data) = scale;
    } else {
      Update update{};
      update.slot = slot;
      update.x_out = float_run(rows.residual());
      UpdateSums none{};
      kernels_.update(update, channels_, &none);
    }
    kernels_.add_term(slot, scale, 1, true, channels_, rows.residual());
  }

  // Returns the scale. A row that is not finite becomes zeros times infinity.
  float narrow(const Run& slot, std::uint32_t peak, const Rows& rows) const {
    const float largest = slot.dtype == DType::kInt8 ? 127.0f : 448.0f;
    if (peak >= kInfinity) {
      std::memset(slot.data, 0, channels_);
      return float_of(kInfinity);
    }
    const float maximum = std::max(float_of(peak), kSmallestMaximum);
    kernels_.narrow(rows.residual(), largest / maximum, slot, channels_);
    return maximum * (1.0f / largest);
  }

  void add_motion(std::int64_t batch, std::int64_t frame, std::int64_t token, const Rows& rows,
                  UpdateSums& lanes, double* sums) const {
    const double size = total(lanes.size);
    lanes.size = {};
    for (std::int64_t s = 0; s < strides(); ++s) {
      const std::int64_t stride = o_.frame_strides[s];
      if (frame >= stride) sums[2 * s + 1] += size;
      if (frame < o_.slot.size[1] - stride) sums[2 * s + 1] += size;
      if (s == 0 || frame < stride) continue;
      Lanes change{};
      kernels_.change(float_run(rows.residual()), earlier(batch, frame - stride, token, rows),
                      channels_, &change);
      sums[2 * s] += total(change);
    }
  }

  Run earlier(std::int64_t batch, std::int64_t frame, std::int64_t token, const Rows& rows) const {
    kernels_.add_term(o_.slot.run(batch, frame, token, 0), scale_at(o_.scale, batch, frame, token),
                      1, true, channels_, rows.earlier());
    return float_run(rows.earlier());
  }

  static float scale_at(const std::optional<View>& scale, std::int64_t batch, std::int64_t frame,
                        std::int64_t token) {
    return scale ? *static_cast<const float*>(scale->run(batch, frame, token, 0).data) : 1.0f;
  }

  static Run float_run(float* row) { return {row, DType::kFloat32}; }

  const DistanceUpdate& o_;
  const Kernels& kernels_;
  std::int64_t channels_;
  Sums sums_;
  std::int64_t tokens_per_task_ = 0, frames_per_task_ = 0;
  std::int64_t tasks_by_token_ = 0, tasks_by_frame_ = 0;
  std::int64_t row_ = 0;
};

}  // namespace

bool uses_eight_bits(const DistanceUpdate& operands) {
  const auto has = [](const View& view) { return has_eight_bits(view.dtype); };
  return has(operands.slot) || std::any_of(operands.previous.begin(), operands.previous.end(), has);
}

void quantized_update(const DistanceUpdate& operands, float* sums, int threads) {
  QuantizedUpdate(operands).run(sums, threads);
}

}  // namespace adacache
