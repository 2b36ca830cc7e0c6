#include "arena.hpp"

#include <mutex>
#include <numeric>
#include <stdexcept>

#include "shared_budget.hpp"
#include "slot_placement.hpp"

namespace adacache::arena {

// A call that changes the lease holds the mutex from its start to its end, including waits. Only
// users of the same lease wait for it.
struct Lease::State {
  explicit State(SharedBudget& shared) : marks(std::make_shared<StreamMarks>(shared.memory())) {}

  void refuse_capture(SharedBudget& shared, Stream stream) const {
    bool capturing = false;
    try {
      capturing = shared.capturing(stream);
    } catch (const CallFailed& error) {
      shared.refuse(error.failure, "was about to map or unmap", held);
    }
    if (capturing)
      throw CaptureError(
          "memory cannot be mapped or unmapped while a stream is being captured: reserve it, by "
          "running one step, before the capture begins");
  }

  // Changes nothing if it throws.
  void wait(SharedBudget& shared, Stream stream) const {
    refuse_capture(shared, stream);
    try {
      shared.wait(*marks);
    } catch (const CallFailed& error) {
      shared.refuse(error.failure, "was to give " + std::to_string(held.mapped) + " bytes back",
                    held);
    }
  }

  void forget(SharedBudget& shared) noexcept {
    std::vector<std::shared_ptr<Chunk>> gone;
    gone.swap(chunks);
    free.clear();
    shared.hold(held, {});
    held = {};
  }

  std::mutex mutex;
  std::shared_ptr<StreamMarks> marks;
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

Lease::Lease(std::shared_ptr<SharedBudget> shared)
    : shared_(std::move(shared)), state_(std::make_unique<State>(*shared_)) {
  shared_->open_lease();
}

Lease::~Lease() {
  if (!shared_->memory().alive()) return;
  state_->forget(*shared_);
  shared_->close_lease();
}

std::vector<Slot> Lease::grow(const std::vector<std::size_t>& sizes, Stream stream) {
  shared_->check_usable();
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
    state.refuse_capture(*shared_, stream);
    const std::size_t needed = round_up(placement.in_new, shared_->memory().granularity());
    chunks.push_back(shared_->map(needed, state.held, state.marks, stream));
    const std::size_t mapped = chunks.back()->bytes();
    held.mapped += mapped;
    if (mapped > placement.in_new)
      placement.free.push_back({state.chunks.size(), placement.in_new, mapped - placement.in_new});
  }
  std::vector<Slot> slots = slots_at(sizes, placement.slots, chunks);
  state.chunks.swap(chunks);
  state.free.swap(placement.free);
  shared_->hold(state.held, held);
  state.held = held;
  return slots;
}

std::vector<Slot> Lease::replan(const std::vector<std::size_t>& sizes, Stream stream) {
  shared_->check_usable();
  const std::lock_guard<std::mutex> lock(state_->mutex);
  State& state = *state_;
  const std::size_t needed = planned_bytes(sizes, shared_->memory().granularity());
  if (state.chunks.size() == 1 && state.held.mapped == needed) {
    const Holding empty{0, 0, 0, needed};
    shared_->hold(state.held, empty);
    state.held = empty;
    state.free = {{0, 0, needed}};
    return grow_locked(sizes, stream);
  }
  if (!state.chunks.empty()) state.wait(*shared_, stream);
  state.forget(*shared_);
  shared_->sweep(stream);
  return grow_locked(sizes, stream);
}

void Lease::release(Stream stream) {
  if (!shared_->memory().alive()) return;
  const std::lock_guard<std::mutex> lock(state_->mutex);
  if (!state_->chunks.empty()) state_->wait(*shared_, stream);
  state_->forget(*shared_);
  shared_->sweep(stream);
}

void Lease::acquire(Stream stream) { state_->marks->acquire(stream); }

void Lease::mark(Stream stream) { state_->marks->mark(stream); }

Arena::Arena(std::shared_ptr<SharedBudget> shared) : shared_(std::move(shared)) {}

Arena Arena::on(std::unique_ptr<Memory> memory, std::size_t budget, std::size_t chunk_bytes) {
  return Arena(std::make_shared<SharedBudget>(std::move(memory), budget, chunk_bytes));
}

Arena Arena::on_host(std::size_t budget, std::size_t chunk_bytes) {
  return on(host_memory(), budget, chunk_bytes);
}

Arena Arena::on_cuda(int device, std::size_t budget, std::size_t chunk_bytes) {
  return on(cuda_memory(device), budget, chunk_bytes);
}

std::unique_ptr<Lease> Arena::lease() {
  shared_->check_usable();
  return std::make_unique<Lease>(shared_);
}

Stats Arena::stats() const { return shared_->stats(); }

void Arena::close(Stream stream) { shared_->close(stream); }

}  // namespace adacache::arena
