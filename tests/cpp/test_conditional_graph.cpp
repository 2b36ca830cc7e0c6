// Conditional graphs on the driver stub. Host functions replace the kernels of captured graphs, and
// a function of this test replaces the kernel that sets the condition.
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "check.hpp"
#include "errors.hpp"
#include "fake_driver.hpp"
#include "faults.hpp"
#include "graph/conditional_graph.hpp"
#include "graph/set_condition.hpp"

using namespace adacache;
using namespace adacache::graph;

namespace {

int describe(int, const char* image, const char* name, std::size_t* bytes, int) {
  if (std::strcmp(image, kSetCondition) != 0 || std::strcmp(name, kSetConditionName) != 0)
    return -1;
  bytes[0] = bytes[1] = 8;
  return 2;
}

int set_condition(int, const unsigned* dimensions, const void* const* parameters, int count) {
  for (int i = 0; i < 6; ++i) CHECK(dimensions[i] == 1);
  CHECK(count == 2);
  const auto condition = *static_cast<const std::uint64_t*>(parameters[0]);
  const auto flag = *static_cast<const std::int32_t* const*>(parameters[1]);
  return fake::get<int(std::uint64_t, unsigned)>("fakecuda_set_conditional")(
      condition, static_cast<unsigned>(*flag));
}

// A captured graph of one function, which may run many times.
class Captured {
 public:
  explicit Captured(std::function<void()> task)
      : task_(new std::function<void()>(std::move(task))) {
    const fake::Stream stream;
    auto* const handle = reinterpret_cast<cu::Stream>(stream.id());
    fake::get<int(cu::Stream, int)>("cuStreamBeginCapture_v2")(handle, cu::kRelaxed);
    fake::get<int(cu::Stream, void (*)(void*), void*)>("cuLaunchHostFunc")(handle, &run, task_);
    fake::get<int(cu::Stream, void**)>("cuStreamEndCapture")(handle, &graph_);
  }
  Captured(const Captured&) = delete;
  Captured& operator=(const Captured&) = delete;
  ~Captured() {
    destroy();
    delete task_;
  }

  // The function stays.
  void destroy() {
    if (graph_ != nullptr) fake::get<int(void*)>("cuGraphDestroy")(graph_);
    graph_ = nullptr;
  }

  GraphHandle handle() const { return reinterpret_cast<GraphHandle>(graph_); }

 private:
  static void run(void* task) { (*static_cast<std::function<void()>*>(task))(); }

  std::function<void()>* task_;
  void* graph_ = nullptr;
};

// A step: `before` chooses the next part by a rule, and all parts record that they ran.
struct Step {
  fake::DeviceArray<std::int32_t> flag{1};
  fake::Stream stream, other;
  std::string ran;
  int steps = 0, launched = 0;
  Captured before{[this] {
    flag.data()[0] = ++steps % 3 == 0 ? 0 : steps - 5;
    ran += 'b';
  }};
  Captured taken{[this] { ran += 't'; }};
  Captured otherwise{[this] { ran += 'o'; }};

  Parts parts() const { return {before.handle(), taken.handle(), otherwise.handle()}; }
};

std::string expected(int steps) {
  std::string text;
  for (int step = 1; step <= steps; ++step) text += step % 3 == 0 || step == 5 ? "bo" : "bt";
  return text;
}

void check_nothing_left() {
  for (const char* kind : {"graphs", "execs", "modules", "events", "contexts", "current"})
    if (fake::live(kind) != 0) {
      std::printf("%ld %s left\n", fake::live(kind), kind);
      CHECK(false);
    }
  if (fake::errors() != 0) std::printf("misuse: %s\n", fake::last_error().c_str());
  CHECK(fake::errors() == 0);
}

// G1, G3, G4: all launches of the first half are pending at once.
void check_branches(const std::string& pace) {
  fake::set("PACE", pace);
  {
    Step step;
    ConditionalGraph graph(0, step.parts(), step.flag.address());
    step.before.destroy();
    step.taken.destroy();
    step.otherwise.destroy();
    const long waits = fake::waits();
    for (int i = 0; i < 25; ++i) graph.launch(step.stream.id());
    for (int i = 0; i < 25; ++i) graph.launch((i % 2 ? step.stream : step.other).id());
    CHECK(fake::waits() == waits);
    step.stream.synchronize();
    step.other.synchronize();
    CHECK(step.ran == expected(50));
  }
  check_nothing_left();
}

// Without `before`, earlier work of the stream sets the flag; without `otherwise`, nothing runs.
void check_fewer_parts() {
  fake::set("PACE", "slow");
  {
    Step step;
    ConditionalGraph graph(0, {0, step.taken.handle(), 0}, step.flag.address());
    for (const std::int32_t flag : {1, 0, 7, 0, 0, -1}) {
      step.stream.run([&step, flag] { step.flag.data()[0] = flag; });
      graph.launch(step.stream.id());
      step.stream.run([&step] { step.ran += '.'; });
    }
    step.stream.synchronize();
    CHECK(step.ran == "t..t...t.");
  }
  check_nothing_left();
}

// G4: launches are pending when the graph is destroyed.
void check_teardown(const std::string& pace) {
  fake::set("PACE", pace);
  {
    Step step;
    for (int lives = 1; lives <= 5; ++lives) {
      ConditionalGraph graph(0, step.parts(), step.flag.address());
      graph.launch(step.stream.id());
      graph.launch(step.other.id());
    }
    CHECK(step.ran == expected(10));
  }
  check_nothing_left();
}

// G4: the graph cannot know whether the last launch is done.
void check_left_loaded(const std::string& fault) {
  fake::set("PACE", "slow");
  Step step;
  const auto loaded = [] {
    return std::vector<long>{fake::live("modules"), fake::live("graphs"), fake::live("execs")};
  };
  std::vector<long> expected_loaded = loaded();
  for (long& count : expected_loaded) ++count;
  {
    ConditionalGraph graph(0, step.parts(), step.flag.address());
    fake::reset();
    fake::set("FAIL", fault);
    graph.launch(step.stream.id());
  }
  fake::unset("FAIL");
  step.stream.synchronize();
  CHECK(step.ran == expected(1) && fake::errors() == 0);
  CHECK(loaded() == expected_loaded);
}

template <typename Exception>
void check_refused(const Step& step, const Parts& parts, Address flag, const char* why) {
  const long graphs = fake::live("graphs");
  const std::string message =
      message_of<Exception>([&] { ConditionalGraph(0, parts, flag).launch(step.stream.id()); });
  if (!has(message, why)) std::printf("it says \"%s\", not \"%s\"\n", message.c_str(), why);
  CHECK(has(message, why) && fake::live("graphs") == graphs && fake::live("execs") == 0);
  CHECK(fake::live("modules") == 0 && fake::live("current") == 0);
}

void check_what_is_refused() {
  fake::set("PACE", "fast");
  {
    Step step;
    const Parts parts = step.parts();
    const Address flag = step.flag.address();
    check_refused<std::invalid_argument>(step, {parts.before, 0, 0}, flag,
                                         "the graph to take is 0");
    check_refused<std::invalid_argument>(step, parts, 0, "the address of the flag is 0");
    check_refused<std::invalid_argument>(step, parts, flag + 2, "expected that of an int32");
    fake::set("VERSION", "12040");
    check_refused<Error>(step, parts, flag,
                         "the CUDA driver is of version 12.4; decision='graph' ");
    check_refused<Error>(step, parts, flag,
                         "570 or newer): update the driver, or use decision='async'");
    fake::unset("VERSION");
    fake::set("HOST_NODES", "0");
    check_refused<CallFailed>(step, parts, flag, "cuGraphInstantiateWithFlags failed: ");
    fake::set("HOST_NODES", "1");
    fake::reset();
  }
  check_nothing_left();
}

// G5
void check_capture() {
  fake::set("PACE", "fast");
  {
    Step step;
    ConditionalGraph graph(0, step.parts(), step.flag.address());
    {
      fake::Capture capture(step.stream);
      CHECK(has(message_of<CaptureError>([&] { graph.launch(step.stream.id()); }), "captured"));
      graph.launch(step.other.id());
      const ConditionalGraph second(0, step.parts(), step.flag.address());
      CHECK(capture.end());
    }
    graph.launch(step.stream.id());
    CHECK(step.ran == expected(2));
  }
  check_nothing_left();
}

// G6
void check_fork() {
  fake::set("PACE", "slow");
  Step step;
  ConditionalGraph graph(0, step.parts(), step.flag.address());
  graph.launch(step.stream.id());
  const pid_t child = fork();
  if (child == 0) {
    fake::reset();
    const bool refused = has(message_of<Error>([&] { graph.launch(step.stream.id()); }), "forked");
    graph.~ConditionalGraph();
    _exit(refused && fake::called().empty() ? 0 : 1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  CHECK(status == 0);
}

void check_message(const std::string& said, const Fault& fault) {
  const bool names_it =
      has(said, fault.function + " failed: ") && has(said, "(" + std::to_string(fault.code) + ")");
  if (!names_it) std::printf("%s", message("it says \"" + said + "\"", fault).c_str());
  CHECK(names_it);
}

// A launch that throws has not run, and the next one does.
void live(Step& step, const Fault& fault) {
  ConditionalGraph graph(0, step.parts(), step.flag.address());
  while (step.launched < 5) {
    if (step.launched == 4) step.stream.synchronize();
    const fake::Stream& stream = step.launched % 2 ? step.other : step.stream;
    const std::string said = message_of<Error>([&] { graph.launch(stream.id()); });
    if (said.empty())
      ++step.launched;
    else
      check_message(said, fault);
  }
}

// G2
void check_fault(const Fault& fault) {
  Step step;
  const std::vector<Count> before = count_all();
  fake::reset();
  fake::set("FAIL", fault.text());
  const std::string said = message_of<Error>([&] { live(step, fault); });
  if (!said.empty()) check_message(said, fault);
  fake::unset("FAIL");
  step.stream.synchronize();
  step.other.synchronize();
  CHECK(step.ran == expected(step.launched));
  CHECK(step.launched == (said.empty() ? 5 : 0));
  const bool is_destroyed_unseen =
      step.launched > 0 &&
      (fault.function == "cuEventRecord" || fault.function == "cuEventSynchronize" ||
       fault.function == "cuCtxPushCurrent" ||
       fault.function == "cuThreadExchangeStreamCaptureMode" ||
       fault.function == "cuGraphDestroy" || fault.function == "cuGraphExecDestroy");
  check_left(before, fault, is_destroyed_unseen ? "modules graphs execs events" : "");
  tidy_thread();
}

void check_faults(const std::string& pace) {
  fake::set("PACE", pace);
  fake::reset();
  {
    Step step;
    live(step, {});
  }
  const std::string ours =
      "cuLaunchHostFunc cuMemAlloc cuMemFree cuStreamCreate cuStreamDestroy cuStreamSynchronize "
      "cuStreamBeginCapture cuStreamEndCapture";
  int count = 0;
  for (Fault fault : faults_of(fake::called(), ours))
    for (const int code : {2, 801, 999}) {
      fault.code = code;
      check_fault(fault);
      ++count;
    }
  std::printf("%s: %d faults\n", pace.c_str(), count);
  CHECK(count > 150);
}

}  // namespace

int main() {
  fake::get<void(decltype(&describe), decltype(&set_condition))>("fakecuda_set_callbacks")(
      &describe, &set_condition);
  fake::set("HOST_NODES", "1");
  for (const char* pace : {"fast", "slow", "random:1", "random:2", "random:3"}) {
    check_branches(pace);
    check_teardown(pace);
  }
  check_fewer_parts();
  check_what_is_refused();
  check_capture();
  check_fork();
  check_faults("fast");
  check_faults("slow");
  check_left_loaded("cuEventSynchronize:*=999");
  check_left_loaded("cuEventRecord:*=999");
  return failures() > 0;
}
