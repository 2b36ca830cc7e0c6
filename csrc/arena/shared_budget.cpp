#include "shared_budget.hpp"

#include <algorithm>
#include <iterator>
#include <stdexcept>

#include "no_throw.hpp"
#include "slot_placement.hpp"

namespace adacache::arena {
namespace {

// A third of the largest std::size_t, so that twice the budget can be counted.
constexpr std::size_t kLargestBudget = kTooMany / 3;

std::string text(std::size_t bytes) { return std::to_string(bytes); }

}  // namespace

// On a device, a later call that names a stream unmaps the block. Here the thread may be capturing
// a stream that the driver does not report, and a wait would break the capture. Python's garbage
// collector may destroy a view at any moment.
Chunk::~Chunk() {
  if (bytes() == 0 || !shared_->memory().alive()) return;
  shared_->retire(block_);
  if (!shared_->memory().has_streams()) shared_->sweep(0);
}

// Reserves twice the budget of addresses: addresses are free of cost, and two leases that are
// planned again alternately leave holes. If all holes are too small, or if there are not so many
// addresses, a block gets its own reservation.
SharedBudget::SharedBudget(std::unique_ptr<Memory> memory, std::size_t budget,
                           std::size_t chunk_bytes)
    : memory_(std::move(memory)), chunk_bytes_(chunk_bytes) {
  if (budget == 0 || budget > kLargestBudget)
    throw std::invalid_argument("the budget of an arena is " + text(budget) +
                                " bytes, expected 1 to " + text(kLargestBudget));
  stats_.budget = budget;
  stats_.why_not_virtual = memory_->why_not_virtual();
  stats_.is_virtual = stats_.why_not_virtual.empty();
  if (!stats_.is_virtual || !memory_->has_free_addresses()) return;
  const std::size_t bytes = round_up(2 * budget, memory_->granularity());
  try {
    reservation_ = memory_->reserve(bytes);
  } catch (const CallFailed& error) {
    if (error.failure.out_of_memory) return;
    throw Error(std::string(error.what()) + ", for addresses of " + text(bytes) +
                " bytes, twice the budget: mapped 0 bytes, reserved 0" + memory_->free_bytes());
  }
  stats_.reserved = bytes;
  addresses_.give(reservation_, bytes);
}

SharedBudget::~SharedBudget() {
  if (!memory_->alive()) return;
  unmap(retired_);
  if (reservation_ == 0) return;
  const std::size_t bytes = round_up(2 * stats_.budget, memory_->granularity());
  quietly([&] { memory_->unreserve(reservation_, bytes); });
}

std::shared_ptr<Chunk> SharedBudget::map(std::size_t needed, const Holding& held,
                                         std::shared_ptr<StreamMarks> marks, Stream stream) {
  sweep(stream);
  auto chunk = std::make_shared<Chunk>(shared_from_this());
  Block block{0, 0, false, std::move(marks)};
  const std::size_t bytes = begin_map(needed, held, block);
  try {
    if (stats_.is_virtual && block.address == 0) take_addresses(block);
    block.address = memory_->map(block.address, bytes);
  } catch (const CallFailed& error) {
    give_addresses(block);
    refuse(error.failure, "asked for " + text(bytes) + " bytes", held);
  } catch (...) {
    give_addresses(block);
    throw;
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  ++stats_.maps;
  ++stats_.chunks;
  stats_.peak_mapped = std::max(stats_.peak_mapped, stats_.mapped);
  chunk->block_.front() = std::move(block);
  return chunk;
}

// Counts the bytes as mapped, so that no other lease takes them, and takes addresses if possible.
std::size_t SharedBudget::begin_map(std::size_t needed, const Holding& held, Block& block) {
  const std::size_t unit = memory_->granularity();
  const std::lock_guard<std::mutex> lock(mutex_);
  const std::size_t room = round_down(stats_.budget, unit) - stats_.mapped;
  if (needed > room) {
    ++stats_.failures;
    throw OverBudget("the arena cannot map " + text(needed) + " bytes more: there is room for " +
                     text(room) + ". " + figures(held) +
                     ". Give it a larger budget, release leases or drop views");
  }
  const std::size_t wished = held.mapped == 0 ? needed : round_up(chunk_bytes_, unit);
  block.bytes = std::clamp(wished, needed, room);
  if (stats_.is_virtual) block.address = addresses_.take(block.bytes);
  stats_.mapped += block.bytes;
  return block.bytes;
}

void SharedBudget::take_addresses(Block& block) {
  block.address = memory_->reserve(block.bytes);
  block.has_own_addresses = true;
  const std::lock_guard<std::mutex> lock(mutex_);
  stats_.reserved += block.bytes;
}

// Frees the addresses of a block that is not mapped.
void SharedBudget::give_addresses(const Block& block) {
  if (block.has_own_addresses) quietly([&] { memory_->unreserve(block.address, block.bytes); });
  const std::lock_guard<std::mutex> lock(mutex_);
  stats_.mapped -= block.bytes;
  if (block.has_own_addresses)
    stats_.reserved -= block.bytes;
  else if (stats_.is_virtual && block.address != 0)
    addresses_.give(block.address, block.bytes);
}

void SharedBudget::refuse(const Failure& failure, const std::string& when, const Holding& held) {
  const std::string free = memory_->free_bytes();
  std::string what = CallFailed(failure).what() + (", when the arena " + when);
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    ++stats_.failures;
    what += ". " + figures(held) + free;
  }
  if (failure.out_of_memory) throw OutOfMemory(what);
  throw Error(what);
}

// The caller holds the mutex.
std::string SharedBudget::figures(const Holding& held) const {
  const std::size_t others = stats_.leases > 0 ? stats_.leases - 1 : 0;
  return "Of a budget of " + text(stats_.budget) + " bytes, " + text(stats_.mapped) +
         " are mapped: this lease " + text(held.mapped) + " (slots take " + text(held.in_use) +
         "), " + text(others) + " other leases " + text(leased_ - held.mapped) +
         ", views of released slots " + text(stats_.mapped - leased_) +
         "; addresses reserved: " + text(stats_.reserved);
}

void SharedBudget::retire(std::list<Block>& block) noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  retired_.splice(retired_.end(), block);
}

bool SharedBudget::capturing(Stream stream) {
  return memory_->capturing(stream) || (stream != 0 && memory_->capturing(0));
}

void SharedBudget::wait(StreamMarks& marks) {
  marks.wait();
  memory_->wait_for_all();
}

void SharedBudget::sweep(Stream stream) noexcept {
  std::list<Block> work;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    work.swap(retired_);
  }
  if (work.empty()) return;
  bool captures = true;
  quietly([&] { captures = capturing(stream); });
  if (!captures) unmap(work);
  const std::lock_guard<std::mutex> lock(mutex_);
  retired_.splice(retired_.end(), work);
}

// Leaves the blocks in the list that cannot be unmapped. If the wait for the device fails, the
// device does no more work, and its memory can be unmapped.
void SharedBudget::unmap(std::list<Block>& blocks) noexcept {
  if (blocks.empty()) return;
  for (const Block& block : blocks) quietly([&] { block.marks->wait(); });
  quietly([&] {
    if (!memory_->capturing(0)) memory_->wait_for_all();
  });
  for (auto block = blocks.begin(); block != blocks.end();) {
    const bool gone = quietly([&] { memory_->unmap(block->address, block->bytes); });
    if (gone) quietly([&] { forget(*block); });
    block = gone ? blocks.erase(block) : std::next(block);
  }
}

void SharedBudget::forget(const Block& block) {
  give_addresses(block);
  const std::lock_guard<std::mutex> lock(mutex_);
  ++stats_.unmaps;
  --stats_.chunks;
}

void SharedBudget::open_lease() {
  const std::lock_guard<std::mutex> lock(mutex_);
  ++stats_.leases;
}

void SharedBudget::close_lease() noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  --stats_.leases;
}

void SharedBudget::hold(const Holding& before, const Holding& after) noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  leased_ += after.mapped - before.mapped;
  stats_.slots += after.slots - before.slots;
  stats_.planned += after.planned - before.planned;
  stats_.in_use += after.in_use - before.in_use;
  stats_.peak_in_use = std::max(stats_.peak_in_use, stats_.in_use);
}

void SharedBudget::close(Stream stream) {
  if (!memory_->alive()) return;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    closed_ = true;
  }
  sweep(stream);
}

void SharedBudget::check_usable() const {
  if (!memory_->alive())
    throw Error(
        "this arena belongs to the process that made it, and this is a fork of that one: "
        "make another arena here");
  const std::lock_guard<std::mutex> lock(mutex_);
  if (closed_) throw Error("the arena is closed: make another one");
}

// A forked child has no other threads, and the mutex may stay locked for ever.
Stats SharedBudget::stats() const {
  if (!memory_->alive()) return stats_;
  const std::lock_guard<std::mutex> lock(mutex_);
  return stats_;
}

}  // namespace adacache::arena
