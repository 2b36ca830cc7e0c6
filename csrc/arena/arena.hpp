// The arena: one reservation of addresses, memory mapped to it in few large chunks, slots carved
// from these. Nothing moves. design.md next to this file has the invariants.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "memory.hpp"
#include "slot_placement.hpp"

namespace adacache::arena {

// Bytes, but for counts. `peak` since the arena was made.
struct Stats {
  std::size_t budget = 0;    // most that may be mapped
  std::size_t reserved = 0;  // of addresses; 0 without virtual memory management
  std::size_t mapped = 0, peak_mapped = 0;
  std::size_t planned = 0;                  // what slots were asked for
  std::size_t in_use = 0, peak_in_use = 0;  // in slots, rounded up to the alignment
  std::size_t chunks = 0, slots = 0, leases = 0;
  std::size_t maps = 0, unmaps = 0, failures = 0;  // so far
  bool is_virtual = true;                          // else each chunk is one plain allocation
  std::string why_not_virtual;
};

class Chunk;

// Keeps the memory of a slot mapped as long as it lives; then it is unmapped with its chunk.
struct Slot {
  Address address = 0;
  std::size_t bytes = 0;
  std::shared_ptr<Chunk> chunk;
};

class Core;

// What one user holds of an arena.
class Lease {
 public:
  explicit Lease(std::shared_ptr<Core> core);
  ~Lease();  // as release(), but for a device's memory: that is unmapped by a later call, see below

  // Slots of these sizes, beside those that there are, whose addresses and contents stay. In memory
  // that this lease has mapped and not used, then in one new chunk. Either all or none.
  std::vector<Slot> grow(const std::vector<std::size_t>& sizes, Stream stream = 0);

  // Forgets all slots and makes new ones. Where they need as much memory as is mapped, nothing is
  // mapped or unmapped and the addresses are those that the same sizes have had before.
  std::vector<Slot> replan(const std::vector<std::size_t>& sizes, Stream stream = 0);

  // Forgets all slots and unmaps what no view holds. The rest is unmapped when its last view goes
  // or, on a device, by the next call of any lease that maps or unmaps, by close(), or with the
  // last of arena, leases and views. Until then it counts as mapped.
  void release(Stream stream = 0);

  // Work on `stream` may use the slots: it waits, on the device, for what other streams have done.
  void acquire(Stream stream);

  // Work that uses the slots was put on `stream`.
  void mark(Stream stream);

 private:
  std::vector<Slot> grow_locked(const std::vector<std::size_t>& sizes, Stream stream);

  std::shared_ptr<Core> core_;
  struct State;
  std::unique_ptr<State> state_;
};

class Arena {
 public:
  // `budget`: most bytes that may ever be mapped. `chunk_bytes`: least bytes of a chunk that is
  // mapped when a lease grows a second time, so that chunks stay few.
  static Arena on_host(std::size_t budget, std::size_t chunk_bytes = 32u << 20);
  static Arena on_cuda(int device, std::size_t budget, std::size_t chunk_bytes = 32u << 20);
  static Arena on(std::unique_ptr<Memory> memory, std::size_t budget, std::size_t chunk_bytes);

  std::unique_ptr<Lease> lease();
  Stats stats() const;

  // No lease can grow any longer. Memory goes with the leases and views that hold it; what nobody
  // holds any longer is unmapped here.
  void close(Stream stream = 0);

 private:
  explicit Arena(std::shared_ptr<Core> core);
  std::shared_ptr<Core> core_;
};

}  // namespace adacache::arena
