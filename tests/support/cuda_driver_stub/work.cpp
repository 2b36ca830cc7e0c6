// Does the work of streams in the thread that calls the driver, in the order of streams and events.
// FAKECUDA_PACE chooses when: "fast", as soon as it may run; "slow", when something waits for it;
// "random:7", some of it at each call of the driver, by that seed.
#include <algorithm>
#include <random>
#include <utility>

#include "streams.hpp"

namespace fakecuda {
namespace {

struct State {
  bool running = false;  // a task is running, and calls the driver
  long waits = 0;
  std::string pace;
  std::mt19937 random;
};

State& state() {
  static State* const made = new State;
  return *made;
}

bool is_random() {
  const std::string pace = setting("PACE", "fast");
  if (pace.rfind("random:", 0) != 0) return false;
  if (pace != state().pace) state().random.seed(std::stoul(pace.substr(7)));
  state().pace = pace;
  return true;
}

void run_first(Stream& stream) {
  Item item = std::move(stream.items.front());
  stream.items.pop_front();
  state().running = true;
  const Result code = item.run ? item.run() : cu::kSuccess;
  state().running = false;
  ++stream.done;
  if (code != cu::kSuccess) stream.context->failure = code;
}

bool may_run(const Stream& stream) {
  if (stream.items.empty() || stream.items.front().held) return false;
  const std::vector<Point>& needs = stream.items.front().needs;
  return std::all_of(needs.begin(), needs.end(), is_reached);
}

std::vector<Stream*> ready_streams() {
  std::vector<Stream*> ready;
  each_stream([&](Stream& stream) {
    if (may_run(stream)) ready.push_back(&stream);
  });
  return ready;
}

void run_ahead() {
  if (state().running || setting("PACE", "fast") != "fast") return;
  for (std::vector<Stream*> ready = ready_streams(); !ready.empty(); ready = ready_streams())
    for (Stream* stream : ready)
      while (may_run(*stream)) run_first(*stream);
}

}  // namespace

std::size_t random_below(std::size_t bound) { return is_random() ? state().random() % bound : 0; }

bool is_reached(const Point& point) {
  return point.stream == nullptr || point.stream->done >= point.ticket;
}

std::vector<Point> implied_needs(const Stream& stream) {
  std::vector<Point> needs;
  if (stream.legacy)
    each_stream([&](Stream& other) {
      if (other.context == stream.context && other.blocking && !other.legacy)
        needs.push_back({&other, other.asked});
    });
  else if (stream.blocking)
    needs.push_back({legacy_of(stream.context), legacy_of(stream.context)->asked});
  return needs;
}

void put(Stream& stream, Item item) {
  const std::vector<Point> implied = implied_needs(stream);
  item.needs.insert(item.needs.end(), implied.begin(), implied.end());
  stream.items.push_back(std::move(item));
  ++stream.asked;
  run_ahead();
}

void finish(const Point& point) {
  if (is_reached(point)) return;
  if (state().running) {
    misuse("work that waits for the device");
    return;
  }
  while (!is_reached(point)) {
    const std::vector<Point>& needs = point.stream->items.front().needs;
    const auto need = std::find_if_not(needs.begin(), needs.end(), is_reached);
    if (need == needs.end())
      run_first(*point.stream);
    else
      finish(Point(*need));  // which may let this stream run ahead
  }
  run_ahead();
}

Result host_waits(const Context& context) {
  ++state().waits;
  return context.failure;
}

void at_each_call() {
  if (state().running || !is_random()) return;
  if (random_below(2) == 0) return;  // more often, streams would hardly ever fall behind
  const std::vector<Stream*> ready = ready_streams();
  if (!ready.empty()) run_first(*ready[random_below(ready.size())]);
}

long waits() { return state().waits; }
void forget_waits() { state().waits = 0; }

}  // namespace fakecuda

// Returns how often the host has waited for the device since the last reset, needed or not:
// synchronizations, synchronous copies, and asynchronous ones of pageable memory.
FAKECUDA_API long fakecuda_waits() {
  const std::lock_guard<std::recursive_mutex> lock(fakecuda::mutex());
  return fakecuda::waits();
}
