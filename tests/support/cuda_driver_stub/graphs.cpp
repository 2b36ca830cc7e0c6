// Graphs: their nodes, the refused ones, their execution.
#include "graphs.hpp"

#include <algorithm>
#include <map>
#include <set>

namespace fakecuda {
namespace {

struct Executable {
  std::shared_ptr<Graph> graph;
  Graph* made_of = nullptr;
};

struct State {
  std::set<Graph*> graphs;  // of programs; bodies belong to their nodes
  std::set<Graph*> bodies;
  std::set<Executable*> executables;
  std::map<std::uint64_t, std::shared_ptr<Condition>> conditions;
  std::uint64_t next_condition = 0x500;
};

State& state() {
  static State* const made = new State;
  return *made;
}

void forget_bodies(const Graph& graph) {
  for (const auto& node : graph.nodes)
    for (const auto& inner : node->graphs) {
      state().bodies.erase(inner.get());
      forget_bodies(*inner);
    }
}

// Prepares a launch.
void assign_conditions(const Graph& graph) {
  for (const auto& node : graph.nodes) {
    if (node->condition && node->condition->is_assigned)
      node->condition->value = node->condition->at_launch;
    for (const auto& inner : node->graphs) assign_conditions(*inner);
  }
}

bool all_conditions_used(const Graph& graph) {
  return std::all_of(graph.conditions.begin(), graph.conditions.end(),
                     [](const auto& condition) { return condition->is_used; });
}

Result run_conditional(const Node& node) {
  if (node.condition->value != 0) return run_graph(*node.graphs[0]);
  return node.graphs.size() == 2 ? run_graph(*node.graphs[1]) : cu::kSuccess;
}

Result run_node(const Node& node) {
  if (node.kind == Kind::kConditional) return run_conditional(node);
  if (node.kind == Kind::kChild) return run_graph(*node.graphs[0]);
  return node.run();
}

bool is_free(const Node& node, const std::set<const Node*>& done) {
  return std::all_of(node.needs.begin(), node.needs.end(),
                     [&](const Node* need) { return done.count(need) != 0; });
}

Executable* find_executable(void* handle) {
  auto* executable = static_cast<Executable*>(handle);
  if (state().executables.count(executable) != 0) return executable;
  misuse("use of an executable graph that is none");
  return nullptr;
}

// The bodies of conditional nodes, at any depth.
bool bodies_are_allowed(const Graph& graph) {
  return std::all_of(graph.nodes.begin(), graph.nodes.end(), [](const auto& node) {
    return node->kind != Kind::kConditional ||
           std::all_of(node->graphs.begin(), node->graphs.end(),
                       [](const auto& body) { return is_allowed_in_body(*body); });
  });
}

}  // namespace

Graph* make_graph() {
  auto* graph = new Graph;
  state().graphs.insert(graph);
  return graph;
}

void destroy_graph(Graph* graph) {
  forget_bodies(*graph);
  state().graphs.erase(graph);
  for (auto entry = state().conditions.begin(); entry != state().conditions.end();)
    entry = entry->second->graph == graph ? state().conditions.erase(entry) : std::next(entry);
  delete graph;
}

Graph* find_graph(void* handle) {
  auto* graph = static_cast<Graph*>(handle);
  if (state().graphs.count(graph) != 0 || state().bodies.count(graph) != 0) return graph;
  misuse("use of a graph that is none");
  return nullptr;
}

bool find_nodes(const Graph& graph, void* const* handles, std::size_t count,
                std::vector<Node*>& found) {
  for (std::size_t i = 0; i < count; ++i) {
    const auto node = std::find_if(graph.nodes.begin(), graph.nodes.end(),
                                   [&](const auto& one) { return one.get() == handles[i]; });
    if (node == graph.nodes.end()) return false;
    found.push_back(node->get());
  }
  return true;
}

Result submit(const char* function, cu::Stream handle, Kind kind, Task task) {
  Stream* stream = find_stream(handle);
  if (stream == nullptr) return cu::kInvalidHandle;
  if (Capture* capture = implicit_capture(*stream))
    return break_capture(*capture, function, cu::kCaptureImplicit);
  if (!stream->capture) {
    put(*stream, {std::move(task), {}});
    return cu::kSuccess;
  }
  if (stream->capture->invalid) return cu::kCaptureInvalidated;
  Node* node = add_node(*stream->capture->graph, kind, stream->last);
  node->run = std::move(task);
  stream->last = {node};
  return cu::kSuccess;
}

Node* add_node(Graph& graph, Kind kind, std::vector<Node*> needs) {
  graph.nodes.push_back(std::make_unique<Node>());
  Node* node = graph.nodes.back().get();
  node->kind = kind;
  node->needs = std::move(needs);
  return node;
}

bool has_conditional(const Graph& graph) {
  return std::any_of(graph.nodes.begin(), graph.nodes.end(), [](const auto& node) {
    return node->kind == Kind::kConditional ||
           std::any_of(node->graphs.begin(), node->graphs.end(),
                       [](const auto& inner) { return has_conditional(*inner); });
  });
}

bool is_allowed_in_body(const Graph& graph) {
  return std::all_of(graph.nodes.begin(), graph.nodes.end(), [](const auto& node) {
    if (node->kind == Kind::kHost) return number("HOST_NODES", 0) != 0;
    return std::all_of(node->graphs.begin(), node->graphs.end(),
                       [](const auto& inner) { return is_allowed_in_body(*inner); });
  });
}

std::shared_ptr<Graph> copy_of(const Graph& graph) {
  auto copy = std::make_shared<Graph>();
  std::map<const Node*, Node*> copies;
  for (const auto& node : graph.nodes) {
    Node* made = add_node(*copy, node->kind, {});
    for (const Node* need : node->needs) made->needs.push_back(copies.at(need));
    for (const auto& inner : node->graphs) made->graphs.push_back(copy_of(*inner));
    made->run = node->run;
    made->condition = node->condition;
    copies[node.get()] = made;
  }
  return copy;
}

Result run_graph(const Graph& graph) {
  std::vector<const Node*> left;
  for (const auto& node : graph.nodes) left.push_back(node.get());
  std::set<const Node*> done;
  while (!left.empty()) {
    std::vector<const Node*> ready;
    std::copy_if(left.begin(), left.end(), std::back_inserter(ready),
                 [&](const Node* node) { return is_free(*node, done); });
    const Node* node = ready[random_below(ready.size())];
    if (const Result code = run_node(*node)) return code;
    done.insert(node);
    left.erase(std::find(left.begin(), left.end(), node));
  }
  return cu::kSuccess;
}

long live_graphs(const std::string& kind) {
  if (kind == "graphs") return static_cast<long>(state().graphs.size());
  if (kind == "execs") return static_cast<long>(state().executables.size());
  return -1;
}

}  // namespace fakecuda

using namespace fakecuda;

FAKECUDA_API int cuGraphCreate(void** graph, unsigned flags) {
  FAKECUDA_ENTER(cuGraphCreate);
  if (flags != 0) return cu::kInvalidValue;
  *graph = make_graph();
  return cu::kSuccess;
}

FAKECUDA_API int cuGraphDestroy(void* handle) {
  FAKECUDA_ENTER(cuGraphDestroy);
  Graph* graph = find_graph(handle);
  if (graph == nullptr) return cu::kInvalidValue;
  if (state().bodies.count(graph) != 0) {
    misuse("cuGraphDestroy of the body of a conditional node");
    return cu::kInvalidValue;
  }
  destroy_graph(graph);
  return cu::kSuccess;
}

FAKECUDA_API int cuGraphGetNodes(void* handle, void** nodes, std::size_t* count) {
  FAKECUDA_ENTER(cuGraphGetNodes);
  const Graph* graph = find_graph(handle);
  if (graph == nullptr) return cu::kInvalidValue;
  for (std::size_t i = 0; nodes != nullptr && i < std::min(*count, graph->nodes.size()); ++i)
    nodes[i] = graph->nodes[i].get();
  *count = graph->nodes.size();
  return cu::kSuccess;
}

FAKECUDA_API int cuGraphAddChildGraphNode(void** made, void* handle, void* const* needs,
                                          std::size_t count, void* child_handle) {
  FAKECUDA_ENTER(cuGraphAddChildGraphNode);
  Graph* graph = find_graph(handle);
  const Graph* child = find_graph(child_handle);
  std::vector<Node*> nodes;
  if (graph == nullptr || child == nullptr || !find_nodes(*graph, needs, count, nodes))
    return cu::kInvalidValue;
  if (has_conditional(*child)) return cu::kNotSupported;
  Node* node = add_node(*graph, Kind::kChild, nodes);
  node->graphs.push_back(copy_of(*child));
  *made = node;
  return cu::kSuccess;
}

FAKECUDA_API int cuGraphConditionalHandleCreate(std::uint64_t* made, void* handle,
                                                cu::Context context, unsigned at_launch,
                                                unsigned flags) {
  FAKECUDA_ENTER(cuGraphConditionalHandleCreate);
  Graph* graph = find_graph(handle);
  if (graph == nullptr || flags > cu::kAssignDefault) return cu::kInvalidValue;
  if (context == nullptr) return cu::kInvalidContext;
  auto condition = std::make_shared<Condition>();
  condition->graph = graph;
  condition->at_launch = at_launch;
  condition->is_assigned = flags == cu::kAssignDefault;
  graph->conditions.push_back(condition);
  *made = state().next_condition++;
  state().conditions[*made] = condition;
  return cu::kSuccess;
}

// Conditional IF nodes. An ELSE needs a driver of CUDA 12.8.
FAKECUDA_API int cuGraphAddNode_v2(void** made, void* handle, void* const* needs,
                                   const cu::EdgeData* edges, std::size_t count,
                                   cu::NodeParameters* wanted) {
  FAKECUDA_ENTER(cuGraphAddNode);
  Graph* graph = find_graph(handle);
  std::vector<Node*> nodes;
  if (graph == nullptr || edges != nullptr || !find_nodes(*graph, needs, count, nodes))
    return cu::kInvalidValue;
  if (wanted->type != cu::kConditionalNode || wanted->conditional.type != cu::kIf)
    return cu::kNotSupported;
  const auto found = state().conditions.find(wanted->conditional.handle);
  const unsigned most = number("VERSION", 13000) >= 12080 ? 2 : 1;
  if (found == state().conditions.end() || found->second->is_used ||
      found->second->graph != graph || wanted->conditional.context == nullptr ||
      wanted->conditional.size < 1 || wanted->conditional.size > most)
    return cu::kInvalidValue;
  Node* node = add_node(*graph, Kind::kConditional, nodes);
  node->condition = found->second;
  node->condition->is_used = true;
  for (unsigned i = 0; i < wanted->conditional.size; ++i) {
    node->graphs.push_back(std::make_shared<Graph>());
    node->graphs.back()->is_body = true;
    node->bodies.push_back(node->graphs.back().get());
    state().bodies.insert(node->graphs.back().get());
  }
  wanted->conditional.bodies = node->bodies.data();
  *made = node;
  return cu::kSuccess;
}

FAKECUDA_API int cuGraphInstantiateWithFlags(void** made, void* handle, unsigned long long flags) {
  FAKECUDA_ENTER(cuGraphInstantiateWithFlags);
  Graph* graph = find_graph(handle);
  if (graph == nullptr || flags != 0 || graph->is_body) return cu::kInvalidValue;
  if (!all_conditions_used(*graph)) return cu::kInvalidValue;
  if (!bodies_are_allowed(*graph)) return cu::kNotSupported;
  if (has_conditional(*graph) && graph->executables > 0) return cu::kInvalidValue;
  auto* executable = new Executable{copy_of(*graph), graph};
  ++graph->executables;
  state().executables.insert(executable);
  *made = executable;
  return cu::kSuccess;
}

FAKECUDA_API int cuGraphLaunch(void* handle, cu::Stream stream) {
  FAKECUDA_ENTER(cuGraphLaunch);
  const Executable* executable = find_executable(handle);
  if (executable == nullptr) return cu::kInvalidValue;
  const std::shared_ptr<Graph> graph = executable->graph;
  if (Stream* found = find_stream(stream); found != nullptr && found->capture)
    return break_capture(*found->capture, "cuGraphLaunch", cu::kCaptureUnsupported);
  return submit("cuGraphLaunch", stream, Kind::kChild, [graph] {
    assign_conditions(*graph);
    return run_graph(*graph);
  });
}

// A pending run ends.
FAKECUDA_API int cuGraphExecDestroy(void* handle) {
  FAKECUDA_ENTER(cuGraphExecDestroy);
  Executable* executable = find_executable(handle);
  if (executable == nullptr) return cu::kInvalidValue;
  if (state().graphs.count(executable->made_of) != 0) --executable->made_of->executables;
  state().executables.erase(executable);
  delete executable;
  return cu::kSuccess;
}

// Does what cudaGraphSetConditional does in a kernel. Returns not 0 for a wrong handle.
FAKECUDA_API int fakecuda_set_conditional(std::uint64_t handle, unsigned value) {
  const std::lock_guard<std::recursive_mutex> lock(mutex());
  const auto found = state().conditions.find(handle);
  if (found == state().conditions.end()) {
    misuse("a kernel sets a condition that is none");
    return 1;
  }
  found->second->value = value;
  return 0;
}
