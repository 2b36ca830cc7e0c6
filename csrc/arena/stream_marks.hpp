// What streams have done with the slots of a lease: one event for each stream that marked.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>

#include "memory.hpp"

namespace adacache::arena {

class Marks {
 public:
  explicit Marks(Memory& memory) : memory_(memory) {}

  void acquire(Stream stream);
  void mark(Stream stream);

  // Until the marked work is done.
  void wait();

 private:
  bool others_reached(Stream stream);

  Memory& memory_;
  std::mutex mutex_;
  std::map<Stream, std::shared_ptr<Event>> events_;
  std::optional<Stream> covers_;  // this stream has waited for all events
};

}  // namespace adacache::arena
