// The mailbox of the host, and the behaviour that all mailboxes share.
#include <array>
#include <stdexcept>
#include <string>

#include "check.hpp"
#include "errors.hpp"
#include "mailbox/mailbox.hpp"

#ifdef __linux__
#include <sys/wait.h>
#include <unistd.h>
#endif

using namespace adacache;
using namespace adacache::mailbox;

namespace {

Address address_of(const State& state) { return reinterpret_cast<Address>(state.data()); }

State decision(std::uint32_t sequence) {
  State state;
  for (std::size_t i = 0; i < state.size(); ++i)
    state[i] = static_cast<float>(sequence) + 0.5f * static_cast<float>(i);
  state.front() = state.back() = static_cast<float>(sequence);
  return state;
}

void post(Mailbox& box, std::uint32_t sequence) {
  const State state = decision(sequence);
  box.post(0, address_of(state), sequence);
}

// M1, M2: a message arrives at once, with the posted state.
void check_order() {
  Mailbox box(host_transport());
  for (std::uint32_t sequence = 1; sequence < 20; ++sequence) {
    State state = decision(sequence);
    box.post(0, address_of(state), sequence);
    state.fill(-1);
    CHECK(box.arrived(sequence));
    const Collected collected = box.collect(sequence);
    CHECK(collected.state == decision(sequence) && collected.waited_seconds == 0);
    CHECK(box.collect(sequence).state == decision(sequence));
  }
}

// M3
void check_kept() {
  Mailbox box(host_transport());
  CHECK(has(message_of<Error>([&] { box.collect(0); }), "there are none yet"));
  for (const std::uint32_t sequence : {3u, 70u, 5u, 9u}) post(box, sequence);
  for (const std::uint32_t sequence : {3u, 70u, 5u, 9u})
    CHECK(box.collect(sequence).state == decision(sequence));
  post(box, 6);
  const std::string message = message_of<Error>([&] { box.collect(3); });
  CHECK(has(message, "decision 3 is not in the mailbox") && has(message, "it has 6, 70, 5, 9"));
  CHECK(!message_of<Error>([&] { box.arrived(3); }).empty());
  CHECK(box.collect(70).state == decision(70));
}

// M4
void check_numbers() {
  Mailbox box(host_transport());
  post(box, kSequences - 1);
  CHECK(box.collect(kSequences - 1).state.front() == 16777215.0f);
  const State state = decision(kSequences);
  for (const std::uint32_t sequence : {kSequences, 4000000000u}) {
    const std::string message =
        message_of<std::invalid_argument>([&] { box.post(0, address_of(state), sequence); });
    CHECK(has(message, std::to_string(sequence)) && has(message, "start again at 0"));
  }
  CHECK(!message_of<std::invalid_argument>([&] { box.collect(kSequences); }).empty());
  CHECK(has(message_of<std::invalid_argument>([&] { box.post(0, 0, 1); }), "is 0"));
  post(box, 0);
  CHECK(box.collect(0).state == decision(0));
  State again = decision(0);
  again[3] = 99;
  box.post(0, address_of(again), 0);
  CHECK(box.collect(0).state == again);
}

// M2
void check_wrong_ends() {
  Mailbox box(host_transport());
  State state = decision(7);
  box.post(0, address_of(state), 8);
  CHECK(message_of<Error>([&] { box.collect(8); }) ==
        "a stale message: it holds decision 7 where 8 was asked for");
  state.front() = 9;
  box.post(0, address_of(state), 9);
  CHECK(message_of<Error>([&] { box.collect(9); }) ==
        "a torn message: it holds decision 9 at its start and 7 at its end, where 9 was asked for");
  state.back() = 10;
  box.post(0, address_of(state), 10);
  CHECK(has(message_of<Error>([&] { box.collect(10); }), "a torn message"));
}

// M8
void check_fork() {
#ifdef __linux__
  Mailbox box(host_transport());
  post(box, 1);
  const pid_t child = fork();
  if (child == 0) {
    const bool refused = !message_of<Error>([&] { box.collect(1); }).empty() &&
                         !message_of<Error>([&] { post(box, 2); }).empty();
    _exit(refused ? 0 : 1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  CHECK(status == 0);
  CHECK(box.collect(1).state == decision(1));
#endif
}

}  // namespace

int main() {
  check_order();
  check_kept();
  check_numbers();
  check_wrong_ends();
  check_fork();
  return failures() > 0;
}
