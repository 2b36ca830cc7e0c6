// The arena on a CUDA device, on the driver stub.
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "arena/arena.hpp"
#include "check.hpp"
#include "fake_driver.hpp"

using namespace adacache;
using namespace adacache::arena;

namespace {

constexpr std::size_t kMiB = 1 << 20, kUnit = 2 * kMiB;

void fill(const Slot& slot, int value) {
  std::memset(reinterpret_cast<void*>(slot.address), value, slot.bytes);
}

bool holds(const Slot& slot, int value) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(slot.address);
  for (std::size_t i = 0; i < slot.bytes; ++i)
    if (bytes[i] != value) return false;
  return true;
}

void check_nothing_left() {
  for (const char* kind : {"phys", "maps", "reservations", "allocs", "bytes", "events", "streams",
                           "graphs", "contexts", "current"}) {
    if (fake::live(kind) != 0) std::printf("%ld %s are left\n", fake::live(kind), kind);
    CHECK(fake::live(kind) == 0);
  }
  if (fake::errors() != 0) std::printf("misuse: %s\n", fake::last_error().c_str());
  CHECK(fake::errors() == 0);
}

void check_life() {
  Arena arena = Arena::on_cuda(0, 64 * kMiB, 8 * kMiB);
  CHECK(arena.stats().is_virtual && arena.stats().reserved == 128 * kMiB);
  auto lease = arena.lease();
  const Slot small = lease->grow({1000}).at(0);
  fill(small, 1);
  CHECK(fake::live("bytes") == static_cast<long>(kUnit));  // A5
  const Slot large = lease->grow({3 * kMiB}).at(0);
  fill(large, 2);
  CHECK(holds(small, 1));  // A3
  CHECK(fake::live("bytes") == static_cast<long>(kUnit + 8 * kMiB));
  const long maps = fake::calls("cuMemMap");
  CHECK(lease->grow({4 * kMiB}).size() == 1);
  CHECK(fake::calls("cuMemMap") == maps);
  lease->release();
  CHECK(fake::live("maps") == 2 && holds(large, 2));  // A7
}

// The first message is about the budget, the second one about the device.
void check_out_of_memory() {
  fake::set("MEM", std::to_string(16 * kMiB));
  Arena arena = Arena::on_cuda(0, 64 * kMiB);
  auto lease = arena.lease();
  const Slot kept = lease->grow({10 * kMiB}).at(0);
  fill(kept, 3);
  CHECK(!message_of<OverBudget>([&] { lease->grow({60 * kMiB}); }).empty());
  const std::string message = message_of<OutOfMemory>([&] { lease->grow({8 * kMiB}); });
  for (const char* part : {"cuMemCreate", "CUDA_ERROR_OUT_OF_MEMORY", "(2)", "33554432 bytes",
                           "budget of 67108864", "10485760 are mapped", "reserved: 134217728",
                           "6291456 of 16777216 bytes of device 0 are free"})
    CHECK(has(message, part));
  CHECK(holds(kept, 3) && arena.stats().mapped == 10 * kMiB && arena.stats().failures == 2);
  // A full device still has virtual memory.
  fake::set("MEM", "0");
  CHECK(Arena::on_cuda(0, 64 * kMiB).stats().is_virtual);
  fake::unset("MEM");
  CHECK(lease->grow({8 * kMiB}).size() == 1);
}

void check_plain(const char* name, const std::string& value, const char* why) {
  fake::set(name, value);
  {
    Arena arena = Arena::on_cuda(0, 64 * kMiB, kUnit);
    const Stats stats = arena.stats();
    CHECK(!stats.is_virtual && stats.reserved == 0);
    if (!has(stats.why_not_virtual, why)) std::printf("%s\n", stats.why_not_virtual.c_str());
    CHECK(has(stats.why_not_virtual, why));
    const auto lease = arena.lease();
    const Slot a = lease->grow({1000}).at(0);
    fill(a, 1);
    fill(lease->grow({3 * kMiB}).at(0), 2);
    CHECK(holds(a, 1) && fake::live("allocs") == 2 && fake::live("maps") == 0);
    const Address before = lease->replan({5 * kMiB}).at(0).address;
    CHECK(lease->replan({5 * kMiB - 1}).at(0).address == before);
    fake::set("MEM", "0");
    const std::string message = message_of<OutOfMemory>([&] { lease->grow({kUnit}); });
    CHECK(has(message, "cuMemAlloc failed: CUDA_ERROR_OUT_OF_MEMORY (2)"));
    CHECK(has(message, "asked for 2097152 bytes"));
    fake::unset("MEM");
  }
  fake::unset(name);
  check_nothing_left();
}

// A11: the device waits for the work of other streams, not the host.
void check_order() {
  Arena arena = Arena::on_cuda(0, 64 * kMiB);
  const fake::Stream a, b, c;
  const auto lease = arena.lease();
  lease->grow({1000});
  const auto waits = [] { return fake::calls("cuStreamWaitEvent"); };
  const long before = waits();
  lease->acquire(a.id());
  a.work();
  lease->mark(a.id());
  lease->acquire(a.id());
  CHECK(waits() == before);
  lease->acquire(b.id());
  CHECK(waits() == before + 1 && !a.idle());
  b.work();
  lease->mark(b.id());
  // b's mark comes after a's work, so that one wait is enough.
  lease->acquire(c.id());
  CHECK(waits() == before + 2);
  c.synchronize();
  CHECK(a.idle() && b.idle());
  // Marks without an acquire do not hide each other.
  a.work();
  lease->mark(a.id());
  b.work();
  lease->mark(b.id());
  lease->acquire(c.id());
  c.synchronize();
  CHECK(a.idle() && b.idle());
  const long others = waits();
  lease->acquire(a.id());
  CHECK(waits() == others + 1);
  CHECK(fake::live("events") <= 3);
}

// A12: memory in use is not unmapped; the stub counts unmaps under pending work.
void check_wait_before_unmap() {
  Arena arena = Arena::on_cuda(0, 64 * kMiB);
  const fake::Stream marked, unmarked;
  const auto lease = arena.lease();
  auto second = arena.lease();
  Slot view = lease->grow({1000}).at(0);
  const auto work = [&](Lease& user) {
    marked.work();
    user.mark(marked.id());
    unmarked.work();
  };
  work(*lease);
  lease->replan({5 * kMiB});
  CHECK(marked.idle() && unmarked.idle() && fake::live("maps") == 2);
  second->grow({1000});
  work(*second);
  second.reset();
  view = {};
  // A destructor does not wait; the next call that maps or unmaps does.
  CHECK(!marked.idle() && !unmarked.idle() && fake::live("maps") == 3);
  lease->release();
  CHECK(marked.idle() && unmarked.idle() && fake::live("maps") == 0 && arena.stats().mapped == 0);
  lease->grow({1000});
  work(*lease);
  CHECK(fake::errors() == 0);
}

// A14: a destructor breaks no capture, not even one on a stream that the arena does not know.
void check_drop_during_capture() {
  Arena arena = Arena::on_cuda(0, 64 * kMiB);
  auto lease = arena.lease();
  auto stream = std::make_unique<fake::Stream>();
  Slot view = lease->grow({1000}).at(0);
  lease->release();
  lease->grow({5 * kMiB});
  {
    fake::Capture capture(*stream);
    view = {};
    lease.reset();
    arena.lease()->release(stream->id());
    CHECK(capture.end());
  }
  CHECK(arena.stats().mapped == 8 * kMiB);
  const auto other = arena.lease();
  other->grow({1000});
  CHECK(arena.stats().mapped == kUnit);

  // A stream that has captured may be destroyed afterwards.
  {
    fake::Capture capture(*stream);
    CHECK(!message_of<CaptureError>([&] { other->grow({kMiB * 9}, stream->id()); }).empty());
    other->mark(stream->id());
    CHECK(capture.end());
  }
  stream.reset();
  CHECK(other->grow({kMiB * 9}).size() == 1);
  other->release();
  CHECK(arena.stats().mapped == 0);
}

// A12: the same for the last of arena, leases and views, during a capture that the driver reports.
void check_last_during_capture() {
  const fake::Stream blocking(0), marked;
  auto arena = std::make_unique<Arena>(Arena::on_cuda(0, 64 * kMiB));
  auto lease = arena->lease();
  lease->grow({1000});
  marked.work();
  lease->mark(marked.id());
  fake::Capture capture(blocking);
  lease.reset();
  arena.reset();
  CHECK(marked.idle() && fake::live("maps") == 0);
  CHECK(capture.end());
}

// A13: a capture has no forbidden calls, and succeeds.
void check_capture(unsigned flags) {
  Arena arena = Arena::on_cuda(0, 64 * kMiB, 8 * kMiB);
  const fake::Stream stream(flags), other;
  const auto lease = arena.lease(), second = arena.lease();
  Slot view = second->grow({1000}).at(0);
  second->release();
  lease->grow({1000});
  lease->grow({1000 * 1000, 3 * kMiB});
  other.work();
  lease->mark(other.id());
  const Stats before = arena.stats();
  {
    fake::Capture capture(stream);
    CHECK(lease->grow({kMiB}, stream.id()).size() == 1);
    const auto refused = [&](const auto& call) {
      CHECK(has(message_of<CaptureError>(call), "before the capture begins"));
    };
    refused([&] { lease->grow({20 * kMiB}, stream.id()); });
    refused([&] { lease->replan({20 * kMiB}, stream.id()); });
    refused([&] { lease->release(stream.id()); });
    if (flags == 0) refused([&] { lease->grow({20 * kMiB}, other.id()); });
    refused([&] { lease->acquire(stream.id()); });
    lease->mark(stream.id());
    // The memory of a destroyed view is unmapped later.
    view = {};
    CHECK(arena.stats().mapped == before.mapped && arena.stats().unmaps == before.unmaps);
    CHECK(arena.stats().slots == before.slots + 1);
    CHECK(capture.end());
  }
  CHECK(!other.idle());
  lease->grow({20 * kMiB}, stream.id());
  CHECK(arena.stats().unmaps == before.unmaps + 1);

  // The work of other streams is done: there is nothing to wait for.
  other.synchronize();
  fake::Capture capture(stream);
  lease->acquire(stream.id());
  CHECK(capture.end());
}

// A plan that is mapped may be made again during a capture.
void check_capture_replan() {
  Arena arena = Arena::on_cuda(0, 64 * kMiB);
  const fake::Stream stream;
  const auto lease = arena.lease();
  const Address address = lease->grow({3 * kMiB}).at(0).address;
  fake::Capture capture(stream);
  CHECK(lease->replan({3 * kMiB}, stream.id()).at(0).address == address);
  CHECK(capture.end());
}

void check_devices() {
  fake::set("DEVICES", "2");
  {
    Arena first = Arena::on_cuda(0, 64 * kMiB), second = Arena::on_cuda(1, 64 * kMiB);
    const auto a = first.lease(), b = second.lease();
    fake::set("MEM", std::to_string(4 * kMiB));
    fill(a->grow({4 * kMiB}).at(0), 1);
    fill(b->grow({4 * kMiB}).at(0), 2);
    CHECK(has(message_of<OutOfMemory>([&] { b->grow({1}); }), "bytes of device 1 are free"));
    fake::unset("MEM");
  }
  CHECK(has(message_of<Error>([] { Arena::on_cuda(2, kUnit); }), "device 2: the driver has 2"));
  CHECK(has(message_of<std::invalid_argument>([] { Arena::on_cuda(-1, kUnit); }), "-1"));
  fake::unset("DEVICES");
}

// A10
void check_fork() {
  auto arena = std::make_unique<Arena>(Arena::on_cuda(0, 64 * kMiB));
  auto lease = arena->lease();
  Slot slot = lease->grow({1000}).at(0);
  lease->mark(0);
  const pid_t child = fork();
  if (child == 0) {
    const long before = fake::calls(nullptr);
    slot = {};
    CHECK(has(message_of<Error>([&] { lease->replan({1}); }), "fork"));
    lease->release();
    lease.reset();
    arena.reset();
    CHECK(fake::calls(nullptr) == before);
    _exit(failures() > 0);
  }
  int status = -1;
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

// A driver that has shut down at the end of the process has freed everything.
void check_deinitialized() {
  {
    Arena arena = Arena::on_cuda(0, 64 * kMiB);
    const auto lease = arena.lease();
    lease->grow({1000});
    lease->mark(0);
    std::string all;
    for (const char* function :
         {"cuCtxPushCurrent", "cuThreadExchangeStreamCaptureMode", "cuStreamIsCapturing",
          "cuEventSynchronize", "cuCtxSynchronize", "cuMemUnmap", "cuMemAddressFree",
          "cuEventDestroy", "cuDevicePrimaryCtxRelease"})
      all += std::string(function) + ":*=4,";
    fake::set("FAIL", all);
    lease->release();
    CHECK(arena.stats().mapped == 0);
  }
  fake::unset("FAIL");
}

void check_threads() {
  Arena arena = Arena::on_cuda(0, 512 * kMiB, kUnit);
  std::vector<std::thread> threads;
  for (int seed = 0; seed < 4; ++seed)
    threads.emplace_back([&, seed] {
      std::mt19937 random(seed);
      const fake::Stream stream;
      const auto lease = arena.lease();
      std::vector<Slot> views;
      for (int step = 0; step < 60; ++step) {
        lease->acquire(stream.id());
        for (Slot& slot : lease->grow({random() % 500000 + 1, random() % 500000 + 1})) {
          std::memset(reinterpret_cast<void*>(slot.address), seed, 1000);
          if (views.size() < 6) views.push_back(std::move(slot));
        }
        lease->mark(stream.id());
        if (random() % 6 == 0) lease->release(stream.id());
        if (random() % 6 == 0) views.clear();
        if (random() % 6 == 0) lease->replan({random() % 3000000 + 1}, stream.id());
        CHECK(arena.stats().mapped <= 512 * kMiB);
      }
    });
  for (std::thread& thread : threads) thread.join();
  arena.close();
  CHECK(arena.stats().mapped == 0 && arena.stats().leases == 0);
}

}  // namespace

int main() {
  check_life();
  check_nothing_left();
  check_out_of_memory();
  check_nothing_left();
  check_plain("VMM", "0", "attribute 102");
  check_plain("FAIL", "cuMemCreate:*=801", "cuMemCreate failed: CUDA_ERROR_NOT_SUPPORTED (801)");
  check_plain("FAIL", "cuMemAddressReserve:*=800", "CUDA_ERROR_NOT_PERMITTED (800)");
  check_order();
  check_nothing_left();
  check_wait_before_unmap();
  check_nothing_left();
  check_last_during_capture();
  check_nothing_left();
  check_drop_during_capture();
  check_nothing_left();
  for (const unsigned flags : {0u, cu::kNonBlocking}) check_capture(flags);
  check_capture_replan();
  check_nothing_left();
  check_devices();
  check_nothing_left();
  check_threads();
  check_nothing_left();
  check_fork();
  check_nothing_left();
  check_deinitialized();
  return failures() > 0;
}
