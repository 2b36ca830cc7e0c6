// A CUDA graph that decides by itself: it runs `before`, then `taken` if an int32 on the device is
// not 0, or `otherwise` if it is.
//
//   before -> kernel: condition = *flag -> conditional node [ taken | otherwise ]
//
// Invariants (tests cite the numbers):
// G1  Every launch reads the flag after its own `before` has run.
// G2  A call that throws has changed nothing and leaks nothing. Launches run one after the other,
//     also on several streams.
// G3  The graph copies its parts, which may then be destroyed. The memory and the modules that the
//     parts use have to stay.
// G4  Only the destructor makes the host wait. It waits for the last launch, because the kernels
//     must stay loaded while they run. If it cannot know that they are done, they stay loaded.
// G5  A launch into a capture throws CaptureError.
// G6  A forked child calls no driver. The destructor throws nothing and reports a failure once;
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
  GraphHandle before = 0;  // 0: no graph
  GraphHandle taken = 0;
  GraphHandle otherwise = 0;  // 0: no graph
};

class ConditionalGraph {
 public:
  // `flag` is the address of the int32. Throws Error if the driver is older than CUDA 12.8, and
  // CallFailed, for example for parts that a conditional node must not contain: host functions,
  // allocations and other conditional nodes.
  ConditionalGraph(int device, const Parts& parts, Address flag);
  ConditionalGraph(const ConditionalGraph&) = delete;
  ConditionalGraph& operator=(const ConditionalGraph&) = delete;
  ~ConditionalGraph();

  // Launches the graph after the earlier work of the stream. Two threads must not launch at once.
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

  // The module is unloaded last; it stays loaded if a graph that uses it could not be destroyed.
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
  Stream last_ = 0;         // the stream of the last launch
  bool under_way_ = false;  // the last launch may still run
  bool untracked_ = false;  // no event marks the end of the last launch
};

}  // namespace adacache::graph
