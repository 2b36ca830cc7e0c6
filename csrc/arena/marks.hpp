// What streams have done with the slots of a lease: one event for each stream that marked.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>

#include "memory.hpp"

namespace adacache::arena {

class Marks {
 public:
  explicit Marks(Memory& memory) : memory_(memory) {}

  void acquire(Stream stream);
  void mark(Stream stream);

  // Whether `stream`, the legacy stream, or a stream that was seen to capture is being captured.
  // Other streams that marked are not asked: they may be destroyed by now.
  bool capturing(Stream stream);

  // Until the marked work is done and, unless something captures, all other work of the device:
  // views may have been used on streams that nobody marked.
  void wait();

 private:
  bool others_reached(Stream stream);
  bool see_capture(Stream stream);

  Memory& memory_;
  std::mutex mutex_;
  std::map<Stream, std::shared_ptr<Event>> events_;
  std::optional<Stream> covers_;  // this stream has waited for all events
  std::set<Stream> captured_;
};

}  // namespace adacache::arena
