// Streams, events and the work on them.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "fake.hpp"

namespace fakecuda {

struct Graph;
struct Node;
struct Stream;

using Task = std::function<Result()>;

// The work of a stream up to the ticket-th piece.
struct Point {
  Stream* stream = nullptr;
  long ticket = 0;
};

struct Item {
  Task run;                  // null: there is nothing to do
  std::vector<Point> needs;  // of other streams
  bool held = false;         // until something waits for it, whatever the pace
};

struct Capture {
  int mode = cu::kGlobal;
  std::uint64_t thread = 0;
  Graph* graph = nullptr;
  bool graph_is_given = false;
  bool invalid = false;
};

struct Stream {
  Context* context = nullptr;
  bool blocking = true;
  bool legacy = false;
  long asked = 0, done = 0;
  std::deque<Item> items;  // pending items
  std::shared_ptr<Capture> capture;
  bool began_capture = false;
  std::vector<Node*> last;  // the nodes on which the next captured node depends
};

struct Event {
  Point point;
  std::shared_ptr<Capture> capture;  // it was recorded in this one
  std::vector<Node*> nodes;
};

// Returns null for a wrong handle. 0 and 1 are the legacy stream of the current context.
Stream* find_stream(cu::Stream handle);
Stream* legacy_of(Context* context);
void each_stream(const std::function<void(Stream&)>& visit);

// Returns the capture of a blocking stream, which makes the legacy stream of its context unusable.
Capture* implicit_capture(const Stream& stream);
Result break_capture(Capture& capture, const std::string& function, Result code);

// Adds an item, and completes its needs.
void put(Stream& stream, Item item);

// The legacy stream waits for all blocking ones of its context, and these wait for it.
std::vector<Point> implied_needs(const Stream& stream);

bool is_reached(const Point& point);

// Does the work up to that point.
void finish(const Point& point);

// Counts a wait of the host, and returns the error of a failed kernel.
Result host_waits(const Context& context);

// Returns a random number below `n` for a free choice of order; 0 unless the pace is random.
std::size_t random_below(std::size_t bound);

}  // namespace fakecuda
