#include "stream_marks.hpp"

#include <algorithm>
#include <vector>

namespace adacache::arena {

void StreamMarks::acquire(Stream stream) {
  if (!memory_.has_streams()) return;
  const std::lock_guard<std::mutex> lock(mutex_);
  if (events_.size() == events_.count(stream) || covers_ == stream) return;
  if (memory_.capturing(stream)) {
    if (others_reached(stream)) return;
    throw CaptureError(
        "a stream that is being captured cannot wait for work that another stream has put on the "
        "slots before: synchronize the device before the capture begins, or run one step on the "
        "stream that captures");
  }
  for (const auto& [other, event] : events_)
    if (other != stream) event->make_stream_wait(stream);
  covers_ = stream;
}

void StreamMarks::mark(Stream stream) {
  if (!memory_.has_streams()) return;
  const std::lock_guard<std::mutex> lock(mutex_);
  if (memory_.capturing(stream)) return;
  const auto found = events_.find(stream);
  std::shared_ptr<Event> event = found == events_.end() ? memory_.event() : found->second;
  event->record(stream);
  if (covers_ == stream)
    events_.clear();  // the new event comes after all others
  else
    covers_.reset();
  events_[stream] = std::move(event);
}

void StreamMarks::wait() {
  std::vector<std::shared_ptr<Event>> events;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (const auto& entry : events_) events.push_back(entry.second);
  }
  for (const auto& event : events) event->wait();
}

bool StreamMarks::others_reached(Stream stream) {
  return std::all_of(events_.begin(), events_.end(), [&](const auto& entry) {
    return entry.first == stream || entry.second->reached();
  });
}

}  // namespace adacache::arena
