// A CUDA graph that decides by itself: `before`, then `taken` if an int32 on the device is not 0 by
// then, else `otherwise`.
//
//   before -> kernel: condition = *flag -> conditional node [ taken | otherwise ]
//
// Invariants (tests cite the numbers):
// G1  Every launch goes by what the flag holds when `before` has run in that launch.
// G2  A call that throws leaves nothing behind and has changed nothing. Launches run one after the
//     other, also on several streams.
// G3  The graphs it is made of are copied and may go; the memory and the modules they use may not.
// G4  The host waits for nothing but in the destructor, which waits for the last launch: the
// kernels
//     must not go while they run. Where it cannot know that they are done, it leaves them loaded.
// G5  Nothing is launched into a capture: CaptureError.
// G6  A forked child calls no driver. The destructor throws nothing and says a failure once;
//     CUDA_ERROR_DEINITIALIZED is a success.
#pragma once

#include <memory>

#include "cuda/context.hpp"
#include "cuda/driver.hpp"
#include "cuda/owned.hpp"
#include "stream_event.hpp"

namespace adacache::graph {

using GraphHandle = std::uintptr_t;  // a CUgraph

struct Parts {
  GraphHandle before = 0;  // may be 0: nothing
  GraphHandle taken = 0;
  GraphHandle otherwise = 0;  // may be 0: nothing
};

class ConditionalGraph {
 public:
  // `flag`: the address of the int32. Throws Error where the driver is older than CUDA 12.8, and
  // CallFailed, as for parts that a conditional node may not hold: host functions, allocations,
  // other conditional nodes.
  ConditionalGraph(int device, const Parts& parts, Address flag);
  ConditionalGraph(const ConditionalGraph&) = delete;
  ConditionalGraph& operator=(const ConditionalGraph&) = delete;
  ~ConditionalGraph();

  // Behind all that is on the stream. Not to be called by two threads at once.
  void launch(Stream stream);

 private:
  cu::Function load_kernel();
  cu::GraphNode add_child(cu::Graph graph, GraphHandle child);
  cu::GraphNode add_kernel(cu::GraphNode before, cu::Condition condition, Address flag);
  cu::ConditionalParameters add_condition(cu::GraphNode kernel, cu::Condition condition);
  void build(const Parts& parts, Address flag);
  void wait_for_last(Stream stream);  // on the device
  bool launches_are_done() noexcept;
  void check_process() const;

  // The module goes last, and stays where a graph that uses it could not be given back.
  struct Loaded {
    explicit Loaded(const cuda::Context& context);
    ~Loaded();
    void leak();

    cuda::Owned module, graph, executable;
  };

  const cuda::Context context_;
  const cuda::Driver& driver_;
  Loaded loaded_;
  std::unique_ptr<Event> launched_;
  Stream last_ = 0;         // of the last launch
  bool under_way_ = false;  // it may be
  bool untracked_ = false;  // no event tells of its end
};

}  // namespace adacache::graph
