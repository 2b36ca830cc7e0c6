#include "quantized_update.hpp"

#include <memory>

#include "../thread_pool.hpp"
#include "instruction_set.hpp"
#include "ordered_sums.hpp"
#include "parallel_for.hpp"

namespace adacache {
namespace {

// The elements of a frame after which the next frame is compared with them.
constexpr std::int64_t kAtOnce = 4096;
// In a longer row, prefetching the next row would need both rows in the cache.
constexpr std::int64_t kLongRow = 8192;
constexpr std::int64_t kBytesAhead = 2048;

bool has_eight_bits(const View& view) { return size_of(view.dtype) == 1; }

std::int64_t tokens_at_once(std::int64_t channels) { return divided_up(kAtOnce, channels + 1); }

// With frame strides, a part has all frames of its tokens.
Partition partition_of(const std::array<std::int64_t, 4>& size, bool all_frames) {
  if (count_of(size) == 0) return {};
  const std::int64_t frames = size[1], tokens = size[2], at_once = tokens_at_once(size[3]);
  const std::int64_t together = (all_frames ? frames : 1) * at_once * size[3];
  return {frames, all_frames ? frames : divided_up(kTaskSize, tokens * size[3]), tokens,
          divided_up(kTaskSize, together) * at_once};
}

struct Row {
  std::int64_t batch, frame, token;
};

class RowsUpdate {
 public:
  explicit RowsUpdate(const DistanceUpdate& o)
      : o_(o),
        kernels_(kernels()),
        partition_(partition_of(o.slot.size, !o.frame_strides.empty())) {}

  void run(float* sums, int threads) const {
    const std::int64_t width = 3 + 2 * strides(), batch = o_.slot.size[0];
    const std::int64_t parts = partition_.parts_per_sample();
    const std::int64_t row = divided_up(o_.slot.size[3], kBlock) * kBlock;
    std::vector<double> partial(batch * parts * width);
    const std::unique_ptr<float[]> scratch(new float[threads * row]);
    parallel_for(batch * parts, threads, [&](std::int64_t index, int worker) {
      double* own = partial.data() + index * width;
      run_part(partition_.part(index), own, scratch.get() + worker * row);
    });
    write_sums(partial, batch, parts, width, sums);
  }

 private:
  std::int64_t strides() const { return static_cast<std::int64_t>(o_.frame_strides.size()); }

  void run_part(const Part& part, double* sums, float* scratch) const {
    UpdateSums lanes{};
    for (auto first = part.first; first < part.last;) {
      const auto last = std::min(first + tokens_at_once(o_.slot.size[3]), part.last);
      for (auto frame = part.first_frame; frame < part.last_frame; ++frame) {
        for (auto token = first; token < last; ++token) {
          const bool frame_goes_on = token + 1 < last || strides() == 0;
          const Row next =
              frame_goes_on ? Row{part.batch, frame, token + 1} : Row{part.batch, frame + 1, first};
          update({part.batch, frame, token}, next, lanes, scratch);
        }
        add_motion(part.batch, frame, first, last, lanes, sums + 3);
      }
      first = last;
    }
    sums[0] = total(lanes.first);
    sums[1] = total(lanes.second);
    sums[2] = total(lanes.third);
    if (strides() > 0) sums[3] = total(lanes.change);
  }

  void update(const Row& row, const Row& next, UpdateSums& lanes, float* scratch) const {
    const auto run = [&](const View& view) { return run_and_next(view, row, next); };
    RowUpdate update{};
    update.slot = run(o_.slot);
    update.x_out = run(o_.x_out);
    if (o_.x_in) update.x_in = run(*o_.x_in);
    if (o_.scale) update.slot_scale = scale_of(*o_.scale, row);
    const int previous = static_cast<int>(o_.previous.size());
    for (int t = 0; t < previous; ++t) {
      const bool is_scaled = !o_.previous_scales.empty() && o_.previous_scales[t];
      const float scale = is_scaled ? *scale_of(*o_.previous_scales[t], row) : 1;
      update.term[t] = {run(o_.previous[t]), scale};
    }
    const bool slot_is_term = o_.slot_holds == SlotHolds::kPrevious;
    if (slot_is_term) update.term[previous] = stored(row);
    update.terms = previous + (slot_is_term ? 1 : 0);
    for (int t = 0; t < update.terms; ++t)
      update.coefficient[t] = o_.coefficients == nullptr ? 1 : o_.coefficients[t];
    update.sums = update.terms == 0 ? Sums::kNone : sums_of(o_.metric);
    update.with_size = strides() > 0;
    if (strides() > 0 && row.frame >= o_.frame_strides[0])
      update.earlier = stored({row.batch, row.frame - o_.frame_strides[0], row.token});
    update.p = scratch;
    kernels_.update_row(update, o_.slot.size[3], &lanes);
  }

  static Run run_and_next(const View& view, const Row& row, const Row& next) {
    Run run = view.run(row.batch, row.frame, row.token, 0);
    const bool is_long = view.size[3] > kLongRow;
    if (is_long) run.next = static_cast<char*>(run.data) + kBytesAhead;
    if (!is_long && next.frame < view.size[1] && next.token < view.size[2])
      run.next = view.run(next.batch, next.frame, next.token, 0).data;
    return run;
  }

  static float* scale_of(const View& scale, const Row& row) {
    return static_cast<float*>(scale.run(row.batch, row.frame, row.token, 0).data);
  }

  // Returns a stored row of the slot.
  ScaledRun stored(const Row& row) const {
    const float scale = o_.scale ? *scale_of(*o_.scale, row) : 1;
    return {o_.slot.run(row.batch, row.frame, row.token, 0), scale};
  }

  // Adds a frame to the motion sums. update() has added the change over the first stride.
  void add_motion(std::int64_t batch, std::int64_t frame, std::int64_t first_token,
                  std::int64_t last_token, UpdateSums& lanes, double* sums) const {
    const double size = total(lanes.size);
    lanes.size = {};
    for (std::int64_t s = 0; s < strides(); ++s) {
      const std::int64_t stride = o_.frame_strides[s];
      if (frame >= stride) sums[2 * s + 1] += size;
      if (frame < o_.slot.size[1] - stride) sums[2 * s + 1] += size;
      if (s == 0 || frame < stride) continue;
      Lanes change{};
      for (auto token = first_token; token < last_token; ++token)
        kernels_.change_of_rows(stored({batch, frame, token}),
                                stored({batch, frame - stride, token}), o_.slot.size[3], &change);
      sums[2 * s] += total(change);
    }
  }

  const DistanceUpdate& o_;
  const Kernels& kernels_;
  Partition partition_;
};

}  // namespace

bool needs_rows(const DistanceUpdate& operands) {
  const auto is_given = [](const std::optional<View>& scale) { return scale.has_value(); };
  const auto& previous = operands.previous;
  const auto& scales = operands.previous_scales;
  return operands.scale || std::any_of(scales.begin(), scales.end(), is_given) ||
         std::any_of(previous.begin(), previous.end(), has_eight_bits);
}

void update_rows(const DistanceUpdate& operands, float* sums, int threads) {
  RowsUpdate(operands).run(sums, threads);
}

}  // namespace adacache
