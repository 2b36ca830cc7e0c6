// The work of streams on the slots of a lease: one event for each stream that marked its work.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>

#include "memory.hpp"

namespace adacache::arena {

class StreamMarks {
 public:
  explicit StreamMarks(Memory& memory) : memory_(memory) {}

  void acquire(Stream stream);
  void mark(Stream stream);

  // Waits on the host until the marked work is done.
  void wait();

 private:
  bool others_reached(Stream stream);

  Memory& memory_;
  std::mutex mutex_;
  std::map<Stream, std::shared_ptr<Event>> events_;
  std::optional<Stream> covers_;  // the stream that has waited for all events
};

}  // namespace adacache::arena
