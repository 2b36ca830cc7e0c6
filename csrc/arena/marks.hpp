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

  // Whether `stream` or the legacy stream is being captured.
  bool capturing(Stream stream) { return memory_.capturing(stream) || memory_.capturing(0); }

  // Whether any stream is, as far as the driver tells. Streams that marked are not asked for this:
  // they may be destroyed by now.
  bool any_capture() { return memory_.any_capture(); }

  // Until the marked work is done and, unless something captures, all other work of the device:
  // views may have been used on streams that nobody marked.
  void wait();

 private:
  bool others_reached(Stream stream);

  Memory& memory_;
  std::mutex mutex_;
  std::map<Stream, std::shared_ptr<Event>> events_;
  std::optional<Stream> covers_;  // this stream has waited for all events
};

}  // namespace adacache::arena
