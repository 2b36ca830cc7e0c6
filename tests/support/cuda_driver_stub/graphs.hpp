// Graphs and their nodes.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "streams.hpp"

namespace fakecuda {

enum class Kind { kKernel, kHost, kCopy, kChild, kConditional };

// One conditional node and the handle by which a kernel sets its value.
struct Condition {
  Graph* graph = nullptr;  // that may have the node
  unsigned value = 0, at_launch = 0;
  bool is_assigned = false;  // at each launch
  bool is_used = false;      // by a node
};

struct Node {
  Kind kind = Kind::kHost;
  Task run;                                    // of a kernel, a host function, a copy
  std::vector<Node*> needs;                    // of the same graph, earlier ones
  std::vector<std::shared_ptr<Graph>> graphs;  // of a child, or the bodies of a conditional node
  std::vector<void*> bodies;                   // their handles
  std::shared_ptr<Condition> condition;
};

struct Graph {
  std::vector<std::unique_ptr<Node>> nodes;
  std::vector<std::shared_ptr<Condition>> conditions;
  bool is_body = false;
  int executables = 0;
};

Graph* make_graph();
void destroy_graph(Graph* graph);

// Returns null for a wrong handle, which is misuse.
Graph* find_graph(void* handle);

// Returns whether these are nodes of the graph.
bool find_nodes(const Graph& graph, void* const* handles, std::size_t count,
                std::vector<Node*>& found);

// Puts work on a stream or, if it is captured, a node into the graph.
Result submit(const char* function, cu::Stream handle, Kind kind, Task task);

Node* add_node(Graph& graph, Kind kind, std::vector<Node*> needs);
bool has_conditional(const Graph& graph);

// Returns whether a body of a conditional node may contain this, at any depth.
bool is_allowed_in_body(const Graph& graph);

std::shared_ptr<Graph> copy_of(const Graph& graph);
Result run_graph(const Graph& graph);

}  // namespace fakecuda
