// The driver stub itself: it does work in the order of streams and events, at each pace.
#include <cstring>
#include <string>
#include <vector>

#include "check.hpp"
#include "fake_driver.hpp"

using namespace adacache;

namespace {

cu::Stream handle(const fake::Stream& stream) { return reinterpret_cast<cu::Stream>(stream.id()); }

class Event {
 public:
  Event() {
    inside([&] { fake::get<int(cu::Event*, unsigned)>("cuEventCreate")(&event_, 0); });
  }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  ~Event() { fake::get<int(cu::Event)>("cuEventDestroy_v2")(event_); }

  void record(const fake::Stream& stream) const {
    fake::get<int(cu::Event, cu::Stream)>("cuEventRecord")(event_, handle(stream));
  }
  void make_stream_wait(const fake::Stream& stream) const {
    fake::get<int(cu::Stream, cu::Event, unsigned)>("cuStreamWaitEvent")(handle(stream), event_, 0);
  }
  int query() const { return fake::get<int(cu::Event)>("cuEventQuery")(event_); }
  int wait() const { return fake::get<int(cu::Event)>("cuEventSynchronize")(event_); }

  template <typename Call>
  static void inside(const Call& call) {
    cu::Context context = nullptr;
    fake::get<int(cu::Context*, int)>("cuDevicePrimaryCtxRetain")(&context, 0);
    fake::get<int(cu::Context)>("cuCtxPushCurrent_v2")(context);
    call();
    fake::get<int(cu::Context*)>("cuCtxPopCurrent_v2")(&context);
    fake::get<int(int)>("cuDevicePrimaryCtxRelease_v2")(0);
  }

 private:
  cu::Event event_ = nullptr;
};

// The work before and after the wait of the host, with one character for each task.
std::string two_streams(const std::string& pace, bool ordered, std::string* before = nullptr) {
  fake::set("PACE", pace);
  std::string ran;
  const fake::Stream a, b;
  const Event first, last;
  for (int i = 0; i < 4; ++i) a.run([&] { ran += 'a'; });
  first.record(a);
  if (ordered) first.make_stream_wait(b);
  for (int i = 0; i < 4; ++i) b.run([&] { ran += 'b'; });
  if (before != nullptr) *before = ran;
  last.record(b);
  if (pace == "slow") CHECK(last.query() == cu::kNotReady);
  CHECK(last.wait() == 0 && last.query() == 0);
  a.synchronize();
  return ran;
}

void check_paces() {
  std::string before;
  CHECK(two_streams("fast", true, &before) == "aaaabbbb" && before == "aaaabbbb");
  CHECK(two_streams("slow", true, &before) == "aaaabbbb" && before.empty());
  CHECK(two_streams("slow", false) == "bbbbaaaa");
  bool mixed = false, started_early = false;
  for (int seed = 0; seed < 20; ++seed) {
    const std::string pace = "random:" + std::to_string(seed);
    CHECK(two_streams(pace, true, &before) == "aaaabbbb");
    started_early = started_early || (!before.empty() && before.size() < 8);
    const std::string ran = two_streams(pace, false);
    mixed = mixed || (ran != "aaaabbbb" && ran != "bbbbaaaa");
    CHECK(ran.size() == 8);
  }
  CHECK(mixed && started_early);
}

// The legacy stream and blocking streams wait for each other; other streams do not.
void check_legacy_stream() {
  fake::set("PACE", "slow");
  std::string ran;
  const fake::Stream blocking(0), free;
  const auto on_legacy = [](std::string* text) {
    Event::inside([&] {
      fake::get<int(cu::Stream, void (*)(void*), void*)>("cuLaunchHostFunc")(
          nullptr, [](void* to) { *static_cast<std::string*>(to) += 'l'; }, text);
    });
  };
  blocking.run([&] { ran += 'a'; });
  free.run([&] { ran += 'f'; });
  on_legacy(&ran);
  blocking.run([&] { ran += 'b'; });
  blocking.synchronize();
  CHECK(ran == "alb");
  free.synchronize();
  CHECK(ran == "albf");
}

using CopyToHost = int(void*, cu::DevicePtr, std::size_t, cu::Stream);
using CopyToDevice = int(cu::DevicePtr, const void*, std::size_t, cu::Stream);

void check_copies() {
  fake::set("PACE", "slow");
  fake::reset();
  const fake::DeviceArray<int> device{4};
  const fake::Stream stream;
  void* pinned = nullptr;
  Event::inside(
      [&] { fake::get<int(void**, std::size_t, unsigned)>("cuMemHostAlloc")(&pinned, 16, 0); });
  auto* const kept = static_cast<int*>(pinned);
  auto* const to_host = fake::get<CopyToHost>("cuMemcpyDtoHAsync_v2");
  auto* const to_device = fake::get<CopyToDevice>("cuMemcpyHtoDAsync_v2");
  kept[0] = 1;
  stream.run([&] { device.data()[0] = 7; });
  CHECK(to_host(kept, device.address(), 4, handle(stream)) == 0 && kept[0] == 1);
  CHECK(fake::waits() == 0);
  int pageable = 0;
  CHECK(to_host(&pageable, device.address(), 4, handle(stream)) == 0);
  CHECK(pageable == 7 && kept[0] == 7 && fake::waits() == 1);
  CHECK(to_device(device.address() + 4, &pageable, 4, handle(stream)) == 0 && fake::waits() == 2);
  CHECK(device.data()[1] == 7);
  CHECK(to_host(kept, device.address() + 13, 4, handle(stream)) == cu::kInvalidValue);
  CHECK(fake::errors() == 0);
  to_host(kept, device.address(), 4, handle(stream));
  fake::get<int(void*)>("cuMemFreeHost")(pinned);
  stream.synchronize();
  CHECK(has(fake::last_error(), "its pinned memory was given back") && fake::waits() == 3);
  CHECK(fake::live("pinned") == 0);
}

// Each task becomes a node; streams that wait for an event of the capture join it.
void check_captured_nodes() {
  fake::set("PACE", "random:3");
  std::string ran;
  void* graph = nullptr;
  {
    const fake::Stream a, b;
    const Event fork, join;
    struct Letter {
      std::string* to;
      char letter;
    };
    static std::vector<Letter> letters;
    letters = {{&ran, 'a'}, {&ran, 'b'}, {&ran, 'c'}, {&ran, 'd'}};
    const auto add = [](const fake::Stream& stream, int which) {
      const auto write = [](void* letter) {
        auto* const it = static_cast<Letter*>(letter);
        *it->to += it->letter;
      };
      fake::get<int(cu::Stream, void (*)(void*), void*)>("cuLaunchHostFunc")(handle(stream), write,
                                                                             &letters[which]);
    };
    fake::get<int(cu::Stream, int)>("cuStreamBeginCapture_v2")(handle(a), cu::kRelaxed);
    add(a, 0);
    fork.record(a);
    fork.make_stream_wait(b);
    add(a, 1);
    add(b, 2);
    join.record(b);
    join.make_stream_wait(a);
    add(a, 3);
    CHECK(fake::get<int(cu::Stream, void**)>("cuStreamEndCapture")(handle(a), &graph) == 0);
    std::size_t nodes = 0;
    fake::get<int(void*, void**, std::size_t*)>("cuGraphGetNodes")(graph, nullptr, &nodes);
    CHECK(nodes == 4 && ran.empty());
    void* executable = nullptr;
    fake::get<int(void**, void*, unsigned long long)>("cuGraphInstantiateWithFlags")(&executable,
                                                                                     graph, 0);
    bool other_order = false;
    for (int i = 0; i < 20; ++i) {
      ran.clear();
      fake::get<int(void*, cu::Stream)>("cuGraphLaunch")(executable, handle(b));
      b.synchronize();
      CHECK(ran == "abcd" || ran == "acbd");
      other_order = other_order || ran == "acbd";
    }
    CHECK(other_order);
    fake::get<int(void*)>("cuGraphExecDestroy")(executable);
  }
  fake::get<int(void*)>("cuGraphDestroy")(graph);
  CHECK(fake::live("graphs") == 0 && fake::live("execs") == 0);
}

// The error of a kernel appears where the host waits, and stays.
void check_failing_kernel() {
  fake::set("PACE", "fast");
  fake::reset();
  fake::get<void(int (*)(int, const char*, const char*, std::size_t*, int),
                 int (*)(int, const unsigned*, const void* const*, int))>("fakecuda_set_callbacks")(
      [](int, const char*, const char*, std::size_t*, int) { return 0; },
      [](int, const unsigned*, const void* const*, int) { return 1; });
  void *module = nullptr, *kernel = nullptr;
  const fake::Stream stream;
  Event::inside(
      [&] { fake::get<int(void**, const void*)>("cuModuleLoadData")(&module, ".version"); });
  fake::get<int(void**, void*, const char*)>("cuModuleGetFunction")(&kernel, module, "kernel");
  auto* const launch =
      fake::get<int(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                    cu::Stream, void**, void**)>("cuLaunchKernel");
  CHECK(launch(kernel, 1, 1, 1, 2048, 1, 1, 0, handle(stream), nullptr, nullptr) ==
        cu::kInvalidValue);
  CHECK(launch(kernel, 1, 1, 1, 1, 1, 1, 0, handle(stream), nullptr, nullptr) == 0);
  const Event event;
  event.record(stream);
  CHECK(event.query() == cu::kLaunchFailed && event.wait() == cu::kLaunchFailed);
  CHECK(fake::get<int(void*)>("cuModuleUnload")(module) == 0 && fake::live("modules") == 0);
  CHECK(fake::errors() == 0);
}

}  // namespace

int main() {
  check_paces();
  check_legacy_stream();
  check_copies();
  check_captured_nodes();
  check_failing_kernel();
  return failures() > 0;
}
