// What the leases of an arena share: the budget, the addresses and the figures. Its mutex guards
// these and nothing else: it is never held while the machine is asked for something.
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
  bool has_own_addresses = false;  // reserved for it alone
  std::shared_ptr<Marks> marks;    // of the lease that it was mapped for
};

// A block that is retired when the last of its lease and the views of its slots goes.
class Chunk {
 public:
  explicit Chunk(std::shared_ptr<Core> core) : core_(std::move(core)), block_(1) {}
  Chunk(const Chunk&) = delete;
  Chunk& operator=(const Chunk&) = delete;
  ~Chunk();

  Address address() const { return block_.front().address; }
  std::size_t bytes() const { return block_.front().bytes; }

 private:
  friend class Core;
  std::shared_ptr<Core> core_;
  std::list<Block> block_;  // one: a node that moves to another list needs no memory
};

// What a lease has.
struct Holding {
  std::size_t slots = 0, planned = 0, in_use = 0, mapped = 0;
};

class Core : public std::enable_shared_from_this<Core> {
 public:
  Core(std::unique_ptr<Memory> memory, std::size_t budget, std::size_t chunk_bytes);
  Core(const Core&) = delete;
  Core& operator=(const Core&) = delete;
  ~Core();

  // A chunk of at least `needed` bytes, for a lease that holds `held`. The first one of a lease is
  // no larger; a later one is, where the budget allows, as large as chunks are to be.
  std::shared_ptr<Chunk> map(std::size_t needed, const Holding& held, std::shared_ptr<Marks> marks,
                             Stream stream);

  // Whether `stream` or the legacy stream is being captured. No other stream is ever asked: it may
  // be destroyed by now.
  bool capturing(Stream stream);

  // Until the device is done with what is marked, and with all else: views may have been used on
  // streams that nobody marked.
  void wait(Marks& marks);

  // Unmaps what nobody holds any longer, unless `stream` is being captured. What the machine
  // refuses to unmap waits for the next call.
  void sweep(Stream stream) noexcept;

  void open_lease();
  void close_lease() noexcept;
  void hold(const Holding& before, const Holding& after) noexcept;

  // Throws what the machine said, and the figures; counts it.
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
  std::size_t leased_ = 0;  // mapped bytes that leases hold; views alone hold the rest
  bool closed_ = false;
  Ranges addresses_;
  std::list<Block> retired_;
};

}  // namespace adacache::arena
