#include "arena.hpp"

#include <mutex>
#include <numeric>
#include <stdexcept>

#include "shared_budget.hpp"
#include "slot_placement.hpp"

namespace adacache::arena {

// The mutex is held for the whole of a call that changes the lease, waiting included: only those
// who use the same lease wait for it.
struct Lease::State {
  explicit State(Core& core) : marks(std::make_shared<Marks>(core.memory())) {}

  void refuse_capture(Core& core, Stream stream) const {
    bool capturing = false;
    try {
      capturing = core.capturing(stream);
    } catch (const CallFailed& error) {
      core.refuse(error.failure, "was about to map or unmap", held);
    }
    if (capturing)
      throw CaptureError(
          "memory cannot be mapped or unmapped while a stream is being captured: reserve it, by "
          "running one step, before the capture begins");
  }

  // Without an effect when it throws.
  void wait(Core& core, Stream stream) const {
    refuse_capture(core, stream);
    try {
      core.wait(*marks);
    } catch (const CallFailed& error) {
      core.refuse(error.failure, "was to give " + std::to_string(held.mapped) + " bytes back",
                  held);
    }
  }

  void forget(Core& core) noexcept {
    std::vector<std::shared_ptr<Chunk>> gone;
    gone.swap(chunks);
    free.clear();
    core.hold(held, {});
    held = {};
  }

  std::mutex mutex;
  std::shared_ptr<Marks> marks;
  std::vector<std::shared_ptr<Chunk>> chunks;
  std::vector<Extent> free;
  Holding held;
};

namespace {

std::vector<Slot> slots_at(const std::vector<std::size_t>& sizes, const std::vector<Extent>& places,
                           const std::vector<std::shared_ptr<Chunk>>& chunks) {
  std::vector<Slot> slots(sizes.size());
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] == 0) continue;
    const std::shared_ptr<Chunk>& chunk = chunks[places[i].chunk];
    slots[i] = {chunk->address() + places[i].offset, sizes[i], chunk};
  }
  return slots;
}

}  // namespace

Lease::Lease(std::shared_ptr<Core> core)
    : core_(std::move(core)), state_(std::make_unique<State>(*core_)) {
  core_->open_lease();
}

Lease::~Lease() {
  if (!core_->memory().alive()) return;
  state_->forget(*core_);
  core_->close_lease();
}

std::vector<Slot> Lease::grow(const std::vector<std::size_t>& sizes, Stream stream) {
  core_->check_usable();
  const std::lock_guard<std::mutex> lock(state_->mutex);
  return grow_locked(sizes, stream);
}

std::vector<Slot> Lease::grow_locked(const std::vector<std::size_t>& sizes, Stream stream) {
  State& state = *state_;
  Placement placement = place(sizes, state.free, state.chunks.size());
  std::vector<std::shared_ptr<Chunk>> chunks = state.chunks;
  Holding held = state.held;
  held.slots += sizes.size();
  held.planned = std::accumulate(sizes.begin(), sizes.end(), held.planned);
  held.in_use += placement.taken;
  if (placement.in_new > 0) {
    state.refuse_capture(*core_, stream);
    const std::size_t needed = round_up(placement.in_new, core_->memory().granularity());
    chunks.push_back(core_->map(needed, state.held, state.marks, stream));
    const std::size_t mapped = chunks.back()->bytes();
    held.mapped += mapped;
    if (mapped > placement.in_new)
      placement.free.push_back({state.chunks.size(), placement.in_new, mapped - placement.in_new});
  }
  std::vector<Slot> slots = slots_at(sizes, placement.slots, chunks);
  state.chunks.swap(chunks);
  state.free.swap(placement.free);
  core_->hold(state.held, held);
  state.held = held;
  return slots;
}

std::vector<Slot> Lease::replan(const std::vector<std::size_t>& sizes, Stream stream) {
  core_->check_usable();
  const std::lock_guard<std::mutex> lock(state_->mutex);
  State& state = *state_;
  const std::size_t needed = planned_bytes(sizes, core_->memory().granularity());
  if (state.chunks.size() == 1 && state.held.mapped == needed) {
    const Holding empty{0, 0, 0, needed};
    core_->hold(state.held, empty);
    state.held = empty;
    state.free = {{0, 0, needed}};
    return grow_locked(sizes, stream);
  }
  if (!state.chunks.empty()) state.wait(*core_, stream);
  state.forget(*core_);
  core_->sweep(stream);
  return grow_locked(sizes, stream);
}

void Lease::release(Stream stream) {
  if (!core_->memory().alive()) return;
  const std::lock_guard<std::mutex> lock(state_->mutex);
  if (!state_->chunks.empty()) state_->wait(*core_, stream);
  state_->forget(*core_);
  core_->sweep(stream);
}

void Lease::acquire(Stream stream) { state_->marks->acquire(stream); }

void Lease::mark(Stream stream) { state_->marks->mark(stream); }

Arena::Arena(std::shared_ptr<Core> core) : core_(std::move(core)) {}

Arena Arena::on(std::unique_ptr<Memory> memory, std::size_t budget, std::size_t chunk_bytes) {
  return Arena(std::make_shared<Core>(std::move(memory), budget, chunk_bytes));
}

Arena Arena::on_host(std::size_t budget, std::size_t chunk_bytes) {
  return on(host_memory(), budget, chunk_bytes);
}

Arena Arena::on_cuda(int device, std::size_t budget, std::size_t chunk_bytes) {
  return on(cuda_memory(device), budget, chunk_bytes);
}

std::unique_ptr<Lease> Arena::lease() {
  core_->check_usable();
  return std::make_unique<Lease>(core_);
}

Stats Arena::stats() const { return core_->stats(); }

void Arena::close(Stream stream) { core_->close(stream); }

}  // namespace adacache::arena
