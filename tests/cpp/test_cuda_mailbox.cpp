// The mailbox of a device on the driver stub: at every pace, and with each call failing once.
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "check.hpp"
#include "errors.hpp"
#include "fake_driver.hpp"
#include "faults.hpp"
#include "mailbox/mailbox.hpp"

using namespace adacache;
using namespace adacache::mailbox;

namespace {

struct Device {
  fake::DeviceArray<State> state{1};  // destroyed last, when the streams have done their work
  fake::Stream stream, other;

  // Like the kernel that decides: as work of the stream.
  void decide(const fake::Stream& on, std::uint32_t sequence) const {
    State* const to = state.data();
    on.run([to, sequence] {
      to->fill(0.25f * static_cast<float>(sequence));
      to->front() = to->back() = static_cast<float>(sequence);
    });
  }
};

void check_state(const State& state, std::uint32_t sequence) {
  CHECK(state.front() == static_cast<float>(sequence) && state.back() == state.front());
  for (std::size_t i = 1; i + 1 < state.size(); ++i)
    CHECK(state[i] == 0.25f * static_cast<float>(sequence));
}

void check_nothing_left() {
  for (const char* kind : {"pinned", "events", "contexts", "current", "allocs"})
    if (fake::live(kind) != 0) {
      std::printf("%ld %s left\n", fake::live(kind), kind);
      CHECK(false);
    }
  if (fake::errors() != 0) std::printf("misuse: %s\n", fake::last_error().c_str());
  CHECK(fake::errors() == 0);
}

// M1, M2: the next decision overwrites the copied state at once.
void check_steps(const std::string& pace) {
  fake::set("PACE", pace);
  {
    const Device device;
    Mailbox box(cuda_transport(0));
    long waited = 0;
    fake::reset();
    for (std::uint32_t sequence = 1; sequence <= 50; ++sequence) {
      device.decide(device.stream, sequence);
      const long before = fake::waits();
      box.post(device.stream.id(), device.state.address(), sequence);
      CHECK(fake::waits() == before);
      device.decide(device.stream, 1000 + sequence);
      const bool there = box.arrived(sequence);
      const Collected collected = box.collect(sequence);
      check_state(collected.state, sequence);
      CHECK((collected.waited_seconds > 0) == (fake::waits() > before));
      CHECK(!there || collected.waited_seconds == 0);
      waited += collected.waited_seconds > 0;
    }
    CHECK(waited == fake::waits());
    if (pace == "fast") CHECK(waited == 0);
    if (pace == "slow") CHECK(waited == 50);
  }
  check_nothing_left();
}

// M5: one message, posted by two streams alternately and never collected.
void check_two_streams(const std::string& pace) {
  fake::set("PACE", pace);
  {
    const fake::DeviceArray<State> second{1};
    const Device device;
    Mailbox box(cuda_transport(0));
    std::uint32_t sequence = 0;
    for (int round = 0; round < 20; ++round) {
      device.decide(device.stream, ++sequence);
      box.post(device.stream.id(), device.state.address(), sequence);
      for (int i = 0; i < 4; ++i) {
        const std::uint32_t next = ++sequence;
        State* const to = second.data();
        device.other.run([to, next] { to->fill(static_cast<float>(next)); });
        box.post(device.other.id(), second.address(), next);
      }
      device.other.synchronize();
      CHECK(box.collect(sequence).state.front() == static_cast<float>(sequence));
    }
  }
  check_nothing_left();
}

// M2: messages that should never occur.
void check_corrupted() {
  fake::set("PACE", "fast");
  const Device device;
  Mailbox box(cuda_transport(0));
  device.decide(device.stream, 5);
  box.post(device.stream.id(), device.state.address(), 5);
  auto* const message = static_cast<State*>(fake::get<void*()>("fakecuda_pinned")());
  message->back() = 4;
  CHECK(has(message_of<Error>([&] { box.collect(5); }), "a torn message: it holds decision 5"));
  message->front() = 4;
  CHECK(has(message_of<Error>([&] { box.collect(5); }), "a stale message: it holds decision 4"));
  message->front() = message->back() = 5;
  check_state(box.collect(5).state, 5);
}

// M6
void check_capture() {
  fake::set("PACE", "fast");
  {
    const Device device;
    Mailbox box(cuda_transport(0));
    device.decide(device.other, 1);
    box.post(device.other.id(), device.state.address(), 1);
    fake::Capture capture(device.stream);
    const std::string message =
        message_of<CaptureError>([&] { box.post(device.stream.id(), device.state.address(), 2); });
    CHECK(has(message, "use decision='graph'"));
    check_state(box.collect(1).state, 1);
    box.post(device.other.id(), device.state.address(), 3);
    CHECK(capture.end());
  }
  check_nothing_left();
}

// M9: copies are pending when the mailbox is destroyed.
void check_teardown(const std::string& pace) {
  fake::set("PACE", pace);
  {
    const Device device;
    for (int lives = 0; lives < 10; ++lives) {
      Mailbox box(cuda_transport(0));
      for (std::uint32_t sequence = 1; sequence < 8; ++sequence)
        box.post((sequence % 2 ? device.stream : device.other).id(), device.state.address(),
                 sequence);
    }
  }
  check_nothing_left();
}

// M7, M9: a copy is pending, and no event marks its end.
void check_untracked() {
  fake::set("PACE", "slow");
  const Device device;
  {
    Mailbox box(cuda_transport(0));
    for (std::uint32_t sequence = 1; sequence <= 4; ++sequence)
      box.post(device.stream.id(), device.state.address(), sequence);
    fake::reset();
    fake::set("FAIL", "cuEventRecord:1");
    CHECK(has(message_of<Error>([&] { box.post(device.other.id(), device.state.address(), 5); }),
              "cuEventRecord failed"));
    fake::unset("FAIL");
    for (const std::uint32_t gone : {1u, 5u})
      CHECK(has(message_of<Error>([&] { box.collect(gone); }), "it has 2, 3, 4"));
  }
  device.other.synchronize();
  CHECK(fake::live("pinned") == 1 && fake::errors() == 0);
  fake::get<int(void*)>("cuMemFreeHost")(fake::get<void*()>("fakecuda_pinned")());
}

// M9: the destructor cannot wait.
void check_failing_wait() {
  fake::set("PACE", "slow");
  const Device device;
  {
    Mailbox box(cuda_transport(0));
    box.post(device.stream.id(), device.state.address(), 1);
    fake::reset();
    fake::set("FAIL", "cuEventSynchronize:*=999");
  }
  fake::unset("FAIL");
  device.stream.synchronize();
  CHECK(fake::live("pinned") == 1 && fake::errors() == 0);
  fake::get<int(void*)>("cuMemFreeHost")(fake::get<void*()>("fakecuda_pinned")());
}

// M8, and a device with another number.
void check_refused() {
  fake::set("PACE", "slow");
  const Device device;
  Mailbox box(cuda_transport(0));
  box.post(device.stream.id(), device.state.address(), 1);
  const pid_t child = fork();
  if (child == 0) {
    fake::reset();
    {
      auto* mine = new Mailbox(host_transport());
      delete mine;
    }
    const bool refused = !message_of<Error>([&] { box.arrived(1); }).empty();
    box.~Mailbox();
    _exit(refused && fake::called().empty() ? 0 : 1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  CHECK(status == 0);
  CHECK(has(message_of<Error>([] { cuda_transport(3); }), "there is no CUDA device 3"));
}

void check_threads() {
  fake::set("PACE", "random:11");
  const auto steps = [](const Device& device) {
    Mailbox box(cuda_transport(0));
    for (std::uint32_t sequence = 1; sequence <= 200; ++sequence) {
      device.decide(device.stream, sequence);
      box.post(device.stream.id(), device.state.address(), sequence);
      check_state(box.collect(sequence).state, sequence);
    }
  };
  {
    const Device mine, yours;
    std::thread first(steps, std::cref(mine)), second(steps, std::cref(yours));
    first.join();
    second.join();
    mine.stream.synchronize();
    yours.stream.synchronize();
  }
  check_nothing_left();
}

void live(Mailbox& box, const Device& device) {
  for (std::uint32_t sequence = 1; sequence <= 6; ++sequence) {
    const fake::Stream& stream = sequence % 3 == 0 ? device.other : device.stream;
    device.decide(stream, sequence);
    box.post(stream.id(), device.state.address(), sequence);
    stream.synchronize();
    check_state(box.collect(sequence).state, sequence);
    box.arrived(sequence);
    device.decide(device.stream, 100 + sequence);
    box.post(device.stream.id(), device.state.address(), 100 + sequence);
    check_state(box.collect(100 + sequence).state, 100 + sequence);
  }
  for (std::uint32_t sequence = 7; sequence <= 11; ++sequence)
    box.post((sequence == 11 ? device.other : device.stream).id(), device.state.address(),
             sequence);
}

void check_message(const std::string& said, const Fault& fault) {
  const bool names_it =
      has(said, fault.function + " failed: ") && has(said, "(" + std::to_string(fault.code) + ")");
  if (!names_it) std::printf("%s", message("it says \"" + said + "\"", fault).c_str());
  CHECK(names_it);
}

// M7, M9
void check_fault(const Fault& fault, const Device& device) {
  const std::vector<Count> before = count_all();
  fake::reset();
  fake::set("FAIL", fault.text());
  try {
    Mailbox box(cuda_transport(0));
    for (int tries = 0; tries < 2; ++tries) {
      const std::string said = message_of<Error>([&] { live(box, device); });
      if (!said.empty()) check_message(said, fault);
    }
    const std::string at_last = message_of<Error>([&] { live(box, device); });
    if (!at_last.empty()) std::printf("%s", message("still: " + at_last, fault).c_str());
    CHECK(at_last.empty());
  } catch (const Error& error) {
    check_message(error.what(), fault);
  }
  const bool lost_sight =
      fault.function == "cuEventRecord" || fault.function == "cuEventSynchronize" ||
      fault.function == "cuCtxPushCurrent" || fault.function == "cuThreadExchangeStreamCaptureMode";
  fake::unset("FAIL");
  check_left(before, fault, lost_sight ? "pinned events" : "");
  tidy_thread();
  device.stream.synchronize();
  device.other.synchronize();
  if (fake::errors() > 0) std::printf("%s", message("then: " + fake::last_error(), fault).c_str());
  CHECK(fake::errors() == 0);
}

void check_faults(const std::string& pace) {
  fake::set("PACE", pace);
  const Device device;
  fake::reset();
  {
    Mailbox box(cuda_transport(0));
    live(box, device);
  }
  int count = 0;
  for (Fault fault : faults_of(fake::called(), "cuLaunchHostFunc cuStreamSynchronize"))
    for (const int code : {2, 719, 999}) {
      fault.code = code;
      check_fault(fault, device);
      ++count;
    }
  std::printf("%s: %d faults\n", pace.c_str(), count);
  CHECK(count > 300);
}

}  // namespace

// With the argument "threads", only the check that has threads runs, for ThreadSanitizer.
int main(int count, char** arguments) {
  if (count > 1 && std::string(arguments[1]) == "threads") {
    check_threads();
    return failures() > 0;
  }
  for (const char* pace : {"fast", "slow", "random:1", "random:2", "random:3"}) {
    check_steps(pace);
    check_two_streams(pace);
    check_teardown(pace);
  }
  check_corrupted();
  check_capture();
  check_untracked();
  check_failing_wait();
  check_refused();
  check_threads();
  check_faults("fast");
  check_faults("slow");
  return failures() > 0;
}
