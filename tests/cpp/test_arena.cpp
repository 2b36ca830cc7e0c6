// The arena on host memory. A1 and so on are the invariants of csrc/arena/design.md.
#include <cstdint>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "arena/arena.hpp"
#include "check.hpp"

#ifdef __linux__
#include <sys/wait.h>
#include <unistd.h>
#endif

using namespace adacache;
using namespace adacache::arena;

namespace {

constexpr std::size_t kPage = 4096, kMiB = 1 << 20;

unsigned char* bytes_of(const Slot& slot) { return reinterpret_cast<unsigned char*>(slot.address); }

void fill(const Slot& slot, int value) { std::memset(bytes_of(slot), value, slot.bytes); }

bool holds(const Slot& slot, int value) {
  for (std::size_t i = 0; i < slot.bytes; ++i)
    if (bytes_of(slot)[i] != value) return false;
  return true;
}

// A3, A5: growth changes no address and no byte; the first chunk has the planned bytes.
void check_growth() {
  Arena arena = Arena::on_host(64 * kMiB, kMiB);
  const auto lease = arena.lease();
  std::vector<Slot> slots = lease->grow({1000, 5000});
  CHECK(arena.stats().mapped == planned_bytes({1000, 5000}, kPage));
  std::vector<Address> addresses;
  for (int round = 0; round < 200; ++round) {
    for (Slot& slot : lease->grow({700, 30000})) slots.push_back(std::move(slot));
    for (std::size_t i = addresses.size(); i < slots.size(); ++i) {
      CHECK(slots[i].address % kAlignment == 0);
      CHECK(holds(slots[i], 0));
      addresses.push_back(slots[i].address);
      fill(slots[i], static_cast<int>(i % 251) + 1);
    }
  }
  for (std::size_t i = 0; i < slots.size(); ++i) {
    CHECK(slots[i].address == addresses[i]);
    CHECK(holds(slots[i], static_cast<int>(i % 251) + 1));
  }
  const Stats stats = arena.stats();
  CHECK(stats.slots == 402 && stats.leases == 1 && stats.is_virtual);
  CHECK(stats.mapped <= 2 * kPage + 7 * kMiB &&
        stats.chunks == 1 + (stats.mapped - 2 * kPage) / kMiB);
  CHECK(stats.in_use == 1024 + 5120 + 200 * (768 + 30208) && stats.in_use <= stats.mapped);
}

// A4: the budget limits all leases together; A6: a failed growth changes nothing.
void check_budget() {
  Arena arena = Arena::on_host(10 * kPage + 1, 4 * kPage);
  const auto a = arena.lease(), b = arena.lease();
  const Slot kept = a->grow({3 * kPage}).at(0);
  fill(kept, 7);
  b->grow({5 * kPage});
  const Stats before = arena.stats();
  const std::string message = message_of<OverBudget>([&] { a->grow({kPage, 2 * kPage}); });
  for (const char* part :
       {"12288 bytes more", "room for 8192", "budget of 40961", "32768 are mapped",
        "this lease 12288", "1 other leases 20480", "released slots 0"})
    CHECK(has(message, part));
  Stats after = arena.stats();
  CHECK(after.failures == 1);
  after.failures = 0;
  CHECK(std::memcmp(&before, &after, offsetof(Stats, is_virtual)) == 0);
  CHECK(holds(kept, 7));
  // A later chunk is clipped to the rest of the budget.
  CHECK(a->grow({kPage}).size() == 1);
  CHECK(arena.stats().mapped == 10 * kPage);
  CHECK(a->grow({kPage}).size() == 1);
  CHECK(arena.stats().mapped == 10 * kPage);
  CHECK(!message_of<OverBudget>([&] { a->grow({1}); }).empty());
  CHECK(!message_of<OverBudget>([&] { a->grow({kTooMany, 5}); }).empty());
}

void check_replan() {
  Arena arena = Arena::on_host(20 * kPage);
  const auto lease = arena.lease();
  const Address first = lease->grow({2 * kPage, kPage}).at(0).address;
  const Stats before = arena.stats();
  std::vector<Slot> again = lease->replan({kPage, 2 * kPage});
  CHECK(again[0].address == first && again[1].address == first + kPage);
  CHECK(arena.stats().maps == before.maps && arena.stats().unmaps == before.unmaps);
  fill(again[1], 9);

  // A7: a view keeps its chunk, which counts.
  std::vector<Slot> larger = lease->replan({12 * kPage});
  CHECK(larger[0].address != first && holds(again[1], 9));
  CHECK(arena.stats().mapped == 15 * kPage && arena.stats().chunks == 2);
  const std::string message = message_of<OverBudget>([&] { lease->replan({18 * kPage}); });
  CHECK(has(message, "views of released slots 61440"));
  CHECK(arena.stats().slots == 0);
  again.clear();
  larger.clear();
  CHECK(arena.stats().mapped == 0 && arena.stats().chunks == 0);
  CHECK(lease->replan({18 * kPage}).size() == 1);
  lease->release();
  CHECK(arena.stats().mapped == 0 && lease->grow({1}).size() == 1);
  CHECK(arena.stats().peak_mapped == 18 * kPage);
}

// A8: a slot alone keeps its memory usable.
void check_view_alone() {
  Slot slot;
  {
    Arena arena = Arena::on_host(kMiB);
    slot = arena.lease()->grow({100}).at(0);
  }
  fill(slot, 3);
  CHECK(holds(slot, 3));
}

void check_closed() {
  Arena arena = Arena::on_host(kMiB);
  const auto lease = arena.lease();
  const Slot slot = lease->grow({100}).at(0);
  arena.close();
  CHECK(has(message_of<Error>([&] { lease->grow({1}); }), "closed"));
  CHECK(has(message_of<Error>([&] { lease->replan({100}); }), "closed"));
  CHECK(has(message_of<Error>([&] { arena.lease(); }), "closed"));
  fill(slot, 1);
  lease->release();
  CHECK(arena.stats().mapped == kPage);
}

void check_arguments() {
  CHECK(has(message_of<std::invalid_argument>([] { Arena::on_host(0); }), "is 0 bytes"));
  CHECK(!message_of<std::invalid_argument>([] { Arena::on_host(kTooMany); }).empty());
  Arena arena = Arena::on_host(kMiB);
  const auto lease = arena.lease();
  const std::vector<Slot> empty = lease->grow({0, 0});
  CHECK(empty.size() == 2 && empty[0].bytes == 0 && arena.stats().mapped == 0);
  CHECK(lease->grow({}).empty());
  CHECK(lease->replan({0}).size() == 1 && arena.stats().slots == 1);
  CHECK(lease->replan({}).empty() && arena.stats().slots == 0);
  lease->acquire(0);
  lease->mark(0);
}

// A9: if the holes between chunks are too small, a chunk gets its own addresses. The test maps as
// many chunks of one size as the budget allows. It keeps those with an address that is a multiple
// of twice the size, and maps chunks of twice the size (Robson's worst case for a first fit).
void check_fragments() {
  constexpr std::size_t kBudget = 64;
  Arena arena = Arena::on_host(kBudget * kPage, kPage);
  const std::size_t reserved = arena.stats().reserved;
  struct User {
    std::unique_ptr<Lease> lease;
    Slot slot;
  };
  std::vector<User> users;
  Address first = 0;
  for (std::size_t pages = 1; pages <= 8; pages *= 2) {
    while (arena.stats().mapped + pages * kPage <= kBudget * kPage) {
      users.push_back({arena.lease(), {}});
      users.back().slot = users.back().lease->grow({pages * kPage}).at(0);
      fill(users.back().slot, static_cast<int>(users.size()));
      if (first == 0) first = users.back().slot.address;
    }
    CHECK(arena.stats().reserved == reserved + (pages == 8 ? 4 * 8 * kPage : 0));
    for (std::size_t i = 0; i < users.size(); ++i)
      CHECK(users[i].slot.address == 0 || holds(users[i].slot, static_cast<int>(i + 1)));
    for (User& user : users) {
      if (user.slot.address == 0) continue;
      const std::size_t at = (user.slot.address - first) / kPage;
      const std::size_t last = at + user.slot.bytes / kPage - 1;
      if (last / (2 * pages) * (2 * pages) < at) user = {};
    }
  }
  users.clear();
  CHECK(arena.stats().reserved == reserved && arena.stats().mapped == 0);
}

void check_plain() {
  Arena arena = Arena::on(plain_host_memory("a test"), 10 * kPage, kPage);
  const auto lease = arena.lease();
  const Slot a = lease->grow({kPage}).at(0);
  fill(a, 1);
  const Slot b = lease->grow({3 * kPage}).at(0);
  fill(b, 2);
  CHECK(holds(a, 1));
  const Stats stats = arena.stats();
  CHECK(!stats.is_virtual && stats.why_not_virtual == "a test" && stats.reserved == 0);
  CHECK(stats.mapped == 4 * kPage && stats.chunks == 2);
  CHECK(!message_of<OverBudget>([&] { lease->grow({7 * kPage}); }).empty());
}

// A9: without addresses for the whole budget, each chunk reserves its own.
void check_few_addresses() {
  class Few final : public Memory {
   public:
    explicit Few(bool has_free) : has_free_(has_free) {}
    std::size_t granularity() const noexcept override { return inner_->granularity(); }
    bool has_free_addresses() const noexcept override { return has_free_; }
    Address reserve(std::size_t bytes) override {
      if (bytes > 8 * kPage) throw CallFailed({"reserve", 12, "ENOMEM", true});
      return inner_->reserve(bytes);
    }
    void unreserve(Address address, std::size_t bytes) override {
      inner_->unreserve(address, bytes);
    }
    Address map(Address address, std::size_t bytes) override { return inner_->map(address, bytes); }
    void unmap(Address address, std::size_t bytes) override { inner_->unmap(address, bytes); }
    bool alive() const noexcept override { return true; }

   private:
    const bool has_free_;
    std::unique_ptr<Memory> inner_ = host_memory();
  };
  for (const bool has_free : {true, false}) {
    Arena arena = Arena::on(std::make_unique<Few>(has_free), has_free ? kMiB : 4 * kPage, kPage);
    CHECK(arena.stats().is_virtual && arena.stats().reserved == 0);
    const auto lease = arena.lease();
    const Slot a = lease->grow({kPage}).at(0), b = lease->grow({2 * kPage}).at(0);
    fill(a, 1);
    fill(b, 2);
    CHECK(holds(a, 1) && holds(b, 2));
    CHECK(arena.stats().reserved == 3 * kPage && arena.stats().mapped == 3 * kPage);
    if (has_free) CHECK(has(message_of<OutOfMemory>([&] { lease->grow({9 * kPage}); }), "ENOMEM"));
  }
}

// A1, A6: whatever the memory throws, the arena is unchanged.
void check_other_exceptions() {
  class Failing final : public Memory {
   public:
    explicit Failing(const bool& fails) : fails_(fails) {}
    std::size_t granularity() const noexcept override { return inner_->granularity(); }
    std::string why_not_virtual() const override { return inner_->why_not_virtual(); }
    Address reserve(std::size_t bytes) override { return inner_->reserve(bytes); }
    void unreserve(Address address, std::size_t bytes) override {
      inner_->unreserve(address, bytes);
    }
    Address map(Address address, std::size_t bytes) override {
      if (fails_) throw std::bad_alloc();
      return inner_->map(address, bytes);
    }
    void unmap(Address address, std::size_t bytes) override { inner_->unmap(address, bytes); }
    bool alive() const noexcept override { return true; }

   private:
    const bool& fails_;
    std::unique_ptr<Memory> inner_ = host_memory();
  };
  bool fails = true;
  Arena arena = Arena::on(std::make_unique<Failing>(fails), 4 * kPage, kPage);
  const auto lease = arena.lease();
  CHECK(!message_of<std::bad_alloc>([&] { lease->grow({4 * kPage}); }).empty());
  CHECK(arena.stats().mapped == 0 && arena.stats().slots == 0);
  fails = false;
  fill(lease->grow({4 * kPage}).at(0), 1);
}

// Threads with one arena and separate leases, and one lease that all of them use.
void check_threads() {
  Arena arena = Arena::on_host(64 * kMiB, 16 * kPage);
  const auto shared = arena.lease();
  std::vector<std::thread> threads;
  for (int seed = 0; seed < 4; ++seed)
    threads.emplace_back([&, seed] {
      std::mt19937 random(seed);
      const auto own = arena.lease();
      std::vector<Slot> views;
      for (int step = 0; step < 150; ++step) {
        Lease& lease = random() % 4 == 0 ? *shared : *own;
        for (Slot& slot : lease.grow({random() % 9000 + 1, random() % 9000 + 1})) {
          fill(slot, seed + 1);
          CHECK(holds(slot, seed + 1));
          if (&lease == own.get() && views.size() < 8) views.push_back(std::move(slot));
        }
        if (random() % 8 == 0) own->release();
        if (random() % 8 == 0) shared->release();
        if (random() % 8 == 0) views.clear();
        for (const Slot& view : views) CHECK(holds(view, seed + 1));
        CHECK(arena.stats().mapped <= 64 * kMiB);
      }
    });
  for (std::thread& thread : threads) thread.join();
  shared->release();
  CHECK(arena.stats().mapped == 0 && arena.stats().in_use == 0 && arena.stats().leases == 1);
}

// A10: a forked child has a copy of the memory of its parent, and cannot use the arena.
void check_fork() {
#ifdef __linux__
  auto arena = std::make_unique<Arena>(Arena::on_host(kMiB));
  auto lease = arena->lease();
  Slot slot = lease->grow({kPage}).at(0);
  fill(slot, 4);
  const pid_t child = fork();
  if (child == 0) {
    CHECK(has(message_of<Error>([&] { lease->grow({1}); }), "fork"));
    CHECK(has(message_of<Error>([&] { lease->replan({kPage}); }), "fork"));
    CHECK(has(message_of<Error>([&] { arena->lease(); }), "fork"));
    CHECK(holds(slot, 4));
    fill(slot, 5);
    lease->release();
    arena->close();
    slot = {};
    lease.reset();
    CHECK(arena->stats().mapped == kPage && arena->stats().unmaps == 0);
    arena.reset();
    Arena own = Arena::on_host(kMiB);
    fill(own.lease()->grow({100}).at(0), 1);
    _exit(failures() > 0);
  }
  int status = -1;
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  CHECK(holds(slot, 4));
#endif
}

}  // namespace

int main() {
  check_growth();
  check_budget();
  check_replan();
  check_view_alone();
  check_closed();
  check_arguments();
  check_fragments();
  check_plain();
  check_few_addresses();
  check_other_exceptions();
  check_threads();
  check_fork();
  return failures() > 0;
}
