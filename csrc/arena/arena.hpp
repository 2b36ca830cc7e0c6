// The arena: one reservation of addresses, with memory mapped to it in few large chunks. Slots lie
// in the chunks and never move. design.md in this folder lists the invariants.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "memory.hpp"
#include "slot_placement.hpp"

namespace adacache::arena {

// The figures of an arena, in bytes except for counts. Peaks count from the arena's start.
struct Stats {
  std::size_t budget = 0;    // the most bytes that may be mapped
  std::size_t reserved = 0;  // of addresses; at first 0 if there are not enough for the budget
  std::size_t mapped = 0, peak_mapped = 0;
  std::size_t planned = 0;                  // requested sizes of the slots
  std::size_t in_use = 0, peak_in_use = 0;  // in slots, rounded up to the alignment
  std::size_t chunks = 0, slots = 0, leases = 0;
  std::size_t maps = 0, unmaps = 0, failures = 0;  // so far
  bool is_virtual = true;                          // else each chunk is one plain allocation
  std::string why_not_virtual;
};

class Chunk;

// A slot keeps its chunk, and so its memory, mapped as long as it exists.
struct Slot {
  Address address = 0;
  std::size_t bytes = 0;
  std::shared_ptr<Chunk> chunk;
};

class SharedBudget;

// The slots that one user has in an arena.
class Lease {
 public:
  explicit Lease(std::shared_ptr<SharedBudget> shared);
  ~Lease();  // like release(), but a later call unmaps the memory of a device, see below

  // Adds slots of these sizes, all or none. Addresses and contents of the existing slots stay. The
  // new ones lie in mapped memory that this lease does not use yet, then in one new chunk.
  std::vector<Slot> grow(const std::vector<std::size_t>& sizes, Stream stream = 0);

  // Replaces all slots by new ones. If they need as much memory as is mapped, nothing is mapped or
  // unmapped, and the same sizes get the same addresses as before.
  std::vector<Slot> replan(const std::vector<std::size_t>& sizes, Stream stream = 0);

  // Drops all slots and unmaps the chunks without views. On the host, other chunks are unmapped
  // with their last view. On a device, the next call of any lease that maps or unmaps does it, or
  // close(), or the destructor of the last of arena, leases and views. Until then they count as
  // mapped.
  void release(Stream stream = 0);

  // Makes `stream` wait, on the device, for the marked work of other streams on the slots.
  void acquire(Stream stream);

  // Marks the work on `stream` so far: it may use the slots.
  void mark(Stream stream);

 private:
  std::vector<Slot> grow_locked(const std::vector<std::size_t>& sizes, Stream stream);

  std::shared_ptr<SharedBudget> shared_;
  struct State;
  std::unique_ptr<State> state_;
};

class Arena {
 public:
  // `budget` is the most bytes that may ever be mapped. `chunk_bytes` is the least size of every
  // chunk of a lease after its first, so that there are few chunks.
  static Arena on_host(std::size_t budget, std::size_t chunk_bytes = 32u << 20);
  static Arena on_cuda(int device, std::size_t budget, std::size_t chunk_bytes = 32u << 20);
  static Arena on(std::unique_ptr<Memory> memory, std::size_t budget, std::size_t chunk_bytes);

  std::unique_ptr<Lease> lease();
  Stats stats() const;

  // Unmaps the chunks without lease and views. Leases cannot grow any more; other memory is
  // unmapped with the leases and views that hold it.
  void close(Stream stream = 0);

 private:
  explicit Arena(std::shared_ptr<SharedBudget> shared);
  std::shared_ptr<SharedBudget> shared_;
};

}  // namespace adacache::arena
