#include "graph/conditional_graph.hpp"

#include <stdexcept>
#include <string>

#include "errors.hpp"
#include "graph/set_condition.hpp"
#include "no_throw.hpp"

namespace adacache::graph {
namespace {

using cuda::Context;
using cuda::Driver;
using cuda::Enter;

constexpr int kOldestVersion = 12080;  // the first with IF nodes that have an ELSE

const char* const kWhatToDo =
    "decision='graph' needs a CUDA driver of 12.8 or newer (on Linux 570 or newer): update the "
    "driver, or use decision='async'";

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

const Driver& able_driver(const Context& context) {
  const Driver& driver = context.driver();
  if (!driver.no_graphs.empty()) throw Error(driver.no_graphs + "; " + kWhatToDo);
  int version = 0;
  driver.check("cuDriverGetVersion", driver.cuDriverGetVersion(&version));
  if (version < kOldestVersion)
    throw Error("the CUDA driver is of version " + version_text(version) + "; " + kWhatToDo);
  return driver;
}

cu::Graph handle(GraphHandle graph) { return reinterpret_cast<cu::Graph>(graph); }

}  // namespace

ConditionalGraph::Loaded::Loaded(const Context& context)
    : module(context, "cuModuleUnload", context.driver().cuModuleUnload),
      graph(context, "cuGraphDestroy", context.driver().cuGraphDestroy),
      executable(context, "cuGraphExecDestroy", context.driver().cuGraphExecDestroy) {}

ConditionalGraph::Loaded::~Loaded() {
  const bool has_no_executable = executable.give_back();
  const bool has_no_graph = graph.give_back();
  if (!has_no_executable || !has_no_graph) module.leak();
}

void ConditionalGraph::Loaded::leak() {
  executable.leak();
  graph.leak();
  module.leak();
}

ConditionalGraph::ConditionalGraph(int device, const Parts& parts, Address flag)
    : context_(device),
      driver_(able_driver(context_)),
      loaded_(context_),
      launched_(context_.event()) {
  if (parts.taken == 0) throw std::invalid_argument("the graph to take is 0, expected a CUgraph");
  if (flag == 0 || flag % sizeof(std::int32_t) != 0)
    throw std::invalid_argument("the address of the flag is " + std::to_string(flag) +
                                ", expected that of an int32 on the device");
  build(parts, flag);
}

ConditionalGraph::~ConditionalGraph() {
  if (!context_.alive() || launches_are_done()) return;
  loaded_.leak();
}

void ConditionalGraph::launch(Stream stream) {
  check_process();
  if (context_.capturing(stream))
    throw CaptureError(
        "a step that decides by itself is a CUDA graph, which cannot be launched while its stream "
        "is being captured: capture less, or use decision='async' outside of captures");
  const Enter enter(context_);
  if (under_way_) wait_for_last(stream);
  driver_.check("cuGraphLaunch",
                driver_.cuGraphLaunch(loaded_.executable.get(), cuda::handle(stream)));
  last_ = stream;
  under_way_ = true;
  untracked_ = !quietly([&] { launched_->record(stream); });
}

void ConditionalGraph::wait_for_last(Stream stream) {
  if (untracked_) launched_->record(last_);
  untracked_ = false;
  if (stream != last_) launched_->make_stream_wait(stream);
}

void ConditionalGraph::build(const Parts& parts, Address flag) {
  const Enter enter(context_);
  driver_.check("cuGraphCreate", driver_.cuGraphCreate(loaded_.graph.put(), 0));
  cu::Condition condition = 0;
  driver_.check("cuGraphConditionalHandleCreate",
                driver_.cuGraphConditionalHandleCreate(&condition, loaded_.graph.get(),
                                                       context_.handle(), 0, cu::kAssignDefault));
  const cu::GraphNode before =
      parts.before == 0 ? nullptr : add_child(loaded_.graph.get(), parts.before);
  const cu::GraphNode kernel = add_kernel(before, condition, flag);
  const cu::ConditionalParameters made = add_condition(kernel, condition);
  add_child(made.bodies[0], parts.taken);
  if (parts.otherwise != 0) add_child(made.bodies[1], parts.otherwise);
  driver_.check(
      "cuGraphInstantiateWithFlags",
      driver_.cuGraphInstantiateWithFlags(loaded_.executable.put(), loaded_.graph.get(), 0));
}

cu::Function ConditionalGraph::load_kernel() {
  cu::Function function = nullptr;
  driver_.check("cuModuleLoadData", driver_.cuModuleLoadData(loaded_.module.put(), kSetCondition));
  driver_.check("cuModuleGetFunction",
                driver_.cuModuleGetFunction(&function, loaded_.module.get(), kSetConditionName));
  return function;
}

cu::GraphNode ConditionalGraph::add_child(cu::Graph graph, GraphHandle child) {
  cu::GraphNode node = nullptr;
  driver_.check("cuGraphAddChildGraphNode",
                driver_.cuGraphAddChildGraphNode(&node, graph, nullptr, 0, handle(child)));
  return node;
}

cu::GraphNode ConditionalGraph::add_kernel(cu::GraphNode before, cu::Condition condition,
                                           Address flag) {
  void* arguments[] = {&condition, &flag};
  cu::KernelParameters kernel;
  kernel.function = load_kernel();
  kernel.parameters = arguments;
  cu::GraphNode node = nullptr;
  driver_.check("cuGraphAddKernelNode",
                driver_.cuGraphAddKernelNode_v2(&node, loaded_.graph.get(), &before,
                                                before == nullptr ? 0 : 1, &kernel));
  return node;
}

cu::ConditionalParameters ConditionalGraph::add_condition(cu::GraphNode kernel,
                                                          cu::Condition condition) {
  cu::NodeParameters wanted;
  wanted.conditional.handle = condition;
  wanted.conditional.size = 2;
  wanted.conditional.context = context_.handle();
  cu::GraphNode node = nullptr;
  driver_.check("cuGraphAddNode", driver_.cuGraphAddNode_v2(&node, loaded_.graph.get(), &kernel,
                                                            nullptr, 1, &wanted));
  return wanted.conditional;
}

bool ConditionalGraph::launches_are_done() noexcept {
  if (!under_way_) return true;
  return !untracked_ && quietly([&] { launched_->wait(); });
}

void ConditionalGraph::check_process() const {
  if (!context_.alive())
    throw Error("a CUDA graph cannot be launched in a forked process: make a new one there");
}

}  // namespace adacache::graph
