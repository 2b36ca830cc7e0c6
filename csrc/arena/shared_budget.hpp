// The budget, addresses and figures that the leases of an arena share. A mutex guards only these;
// it is never locked during a call to the operating system or to the driver.
#pragma once

#include <list>
#include <memory>
#include <mutex>
#include <string>

#include "arena.hpp"
#include "free_ranges.hpp"
#include "memory.hpp"
#include "stream_marks.hpp"

namespace adacache::arena {

// Memory that is mapped.
struct Block {
  Address address = 0;
  std::size_t bytes = 0;
  bool has_own_addresses = false;      // a reservation for this block alone
  std::shared_ptr<StreamMarks> marks;  // the marks of its lease
};

// A block that is retired with the last of its lease and the views of its slots.
class Chunk {
 public:
  explicit Chunk(std::shared_ptr<SharedBudget> shared) : shared_(std::move(shared)), block_(1) {}
  Chunk(const Chunk&) = delete;
  Chunk& operator=(const Chunk&) = delete;
  ~Chunk();

  Address address() const { return block_.front().address; }
  std::size_t bytes() const { return block_.front().bytes; }

 private:
  friend class SharedBudget;
  std::shared_ptr<SharedBudget> shared_;
  std::list<Block> block_;  // one node, because moving a node to another list needs no memory
};

// The figures of one lease.
struct Holding {
  std::size_t slots = 0, planned = 0, in_use = 0, mapped = 0;
};

class SharedBudget : public std::enable_shared_from_this<SharedBudget> {
 public:
  SharedBudget(std::unique_ptr<Memory> memory, std::size_t budget, std::size_t chunk_bytes);
  SharedBudget(const SharedBudget&) = delete;
  SharedBudget& operator=(const SharedBudget&) = delete;
  ~SharedBudget();

  // Returns a chunk of at least `needed` bytes for a lease that holds `held`. The first chunk of a
  // lease is no larger. A later one has at least the chunk size, if the budget allows.
  std::shared_ptr<Chunk> map(std::size_t needed, const Holding& held,
                             std::shared_ptr<StreamMarks> marks, Stream stream);

  // Returns whether `stream` or the legacy stream is being captured. Other streams are not checked:
  // they may not exist any more.
  bool capturing(Stream stream);

  // Waits for the marked work, and then for all work of the device: views may have been used on
  // streams without a mark.
  void wait(StreamMarks& marks);

  // Unmaps the retired blocks, unless `stream` is being captured. If unmapping fails, the next call
  // tries again.
  void sweep(Stream stream) noexcept;

  void open_lease();
  void close_lease() noexcept;
  void hold(const Holding& before, const Holding& after) noexcept;

  // Counts a failure and throws it together with the figures.
  [[noreturn]] void refuse(const Failure& failure, const std::string& when, const Holding& held);

  void close(Stream stream);
  void check_usable() const;
  Stats stats() const;
  Memory& memory() { return *memory_; }

 private:
  friend class Chunk;
  void retire(std::list<Block>& block) noexcept;
  void unmap(std::list<Block>& blocks) noexcept;
  void forget(const Block& block);
  std::size_t begin_map(std::size_t needed, const Holding& held, Block& block);
  void take_addresses(Block& block);
  void give_addresses(const Block& block);
  std::string figures(const Holding& held) const;

  const std::unique_ptr<Memory> memory_;
  const std::size_t chunk_bytes_;
  Address reservation_ = 0;
  mutable std::mutex mutex_;
  Stats stats_;
  std::size_t leased_ = 0;  // mapped bytes that leases hold; only views hold the rest
  bool closed_ = false;
  FreeRanges addresses_;
  std::list<Block> retired_;
};

}  // namespace adacache::arena
