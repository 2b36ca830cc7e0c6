#include "mailbox/mailbox.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>

#include "errors.hpp"
#include "no_throw.hpp"

namespace adacache::mailbox {
namespace {

using Clock = std::chrono::steady_clock;

// Returns a float as text, such as "7", "0.5" or "nan".
std::string text(float value) {
  char digits[32];
  std::snprintf(digits, sizeof digits, "%.9g", static_cast<double>(value));
  return digits;
}

void check_sequence(std::uint32_t sequence) {
  if (sequence >= kSequences)
    throw std::invalid_argument("the number of a decision is " + std::to_string(sequence) +
                                ", expected less than " + std::to_string(kSequences) +
                                ", which a float32 holds exactly: start again at 0");
}

void check_ends(const State& state, std::uint32_t sequence) {
  const float first = state.front(), last = state.back();
  const auto expected = static_cast<float>(sequence);
  if (first == expected && last == expected) return;
  const std::string asked = std::to_string(sequence) + " was asked for";
  if (first == last || (std::isnan(first) && std::isnan(last)))
    throw Error("a stale message: it holds decision " + text(first) + " where " + asked);
  throw Error("a torn message: it holds decision " + text(first) + " at its start and " +
              text(last) + " at its end, where " + asked);
}

}  // namespace

Mailbox::Mailbox(std::unique_ptr<Transport> transport)
    : transport_(std::move(transport)), memory_(transport_->pinned(kMessages * sizeof(State))) {
  for (Message& message : messages_) message.event = transport_->event();
  State nothing;
  nothing.fill(std::numeric_limits<float>::quiet_NaN());
  auto* states = static_cast<State*>(memory_->data());
  std::fill(states, states + kMessages, nothing);
}

Mailbox::~Mailbox() {
  if (!transport_->alive()) return;
  const bool done = wait_for_all();
  if (!done || untracked_) memory_->leak();
}

void Mailbox::post(Stream stream, Address state, std::uint32_t sequence) {
  check_process();
  check_sequence(sequence);
  if (state == 0) throw std::invalid_argument("the address of the state of a decision is 0");
  if (transport_->capturing(stream))
    throw CaptureError(
        "decision='async' cannot be captured in a CUDA graph, as the host reads each decision: "
        "use decision='graph'");
  Message* const again = find(sequence);
  Message& message = again != nullptr ? *again : messages_[next_];
  if (!has_arrived(message)) message.event->make_stream_wait(stream);
  message.sequence.reset();
  transport_->copy(place(message), state, sizeof(State), stream);
  if (message.event) {
    record(*message.event, stream);
    message.under_way = true;
  }
  message.sequence = sequence;
  if (again == nullptr) next_ = (next_ + 1) % kMessages;
}

bool Mailbox::arrived(std::uint32_t sequence) { return has_arrived(posted_message(sequence)); }

Collected Mailbox::collect(std::uint32_t sequence) {
  Message& message = posted_message(sequence);
  double waited = 0;
  if (!has_arrived(message)) {
    const Clock::time_point start = Clock::now();
    message.event->wait();
    message.under_way = false;
    const std::chrono::duration<double> passed = Clock::now() - start;
    waited = std::max(passed.count(), 1e-9);
  }
  const Collected collected{*place(message), waited};
  check_ends(collected.state, sequence);
  return collected;
}

void Mailbox::record(Event& event, Stream stream) {
  try {
    event.record(stream);
  } catch (...) {
    untracked_ = true;
    throw;
  }
}

Mailbox::Message* Mailbox::find(std::uint32_t sequence) {
  const auto found = std::find_if(messages_.begin(), messages_.end(), [&](const Message& message) {
    return message.sequence == sequence;
  });
  return found == messages_.end() ? nullptr : &*found;
}

Mailbox::Message& Mailbox::posted_message(std::uint32_t sequence) {
  check_process();
  check_sequence(sequence);
  if (Message* const found = find(sequence)) return *found;
  std::string kept;
  for (const Message& message : messages_)
    if (message.sequence)
      kept += (kept.empty() ? "it has " : ", ") + std::to_string(*message.sequence);
  throw Error("decision " + std::to_string(sequence) + " is not in the mailbox, which keeps the " +
              std::to_string(kMessages) +
              " that were posted last: " + (kept.empty() ? "there are none yet" : kept));
}

State* Mailbox::place(const Message& message) const {
  return static_cast<State*>(memory_->data()) + (&message - messages_.data());
}

bool Mailbox::has_arrived(Message& message) {
  if (message.under_way && message.event->reached()) message.under_way = false;
  return !message.under_way;
}

bool Mailbox::wait_for_all() noexcept {
  bool done = true;
  for (Message& message : messages_)
    if (message.under_way) done = quietly([&] { message.event->wait(); }) && done;
  return done;
}

void Mailbox::check_process() const {
  if (!transport_->alive())
    throw Error("a mailbox cannot be used in a forked process: make a new one there");
}

}  // namespace adacache::mailbox
