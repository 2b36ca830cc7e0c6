// The mailbox brings decision messages from the device to the host. design.md in this folder lists
// the invariants.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

#include "mailbox/transport.hpp"
#include "stream_event.hpp"

namespace adacache::mailbox {

constexpr std::size_t kStateFloats = 10;  // the first and the last one are the sequence number
constexpr std::size_t kMessages = 4;      // a message stays until this many more are posted
constexpr std::uint32_t kSequences = 1u << 24;  // a float holds smaller numbers exactly

using State = std::array<float, kStateFloats>;

struct Collected {
  State state;
  double waited_seconds = 0;  // more than 0 if and only if the host waited
};

// Two threads must not use a mailbox at once.
class Mailbox {
 public:
  explicit Mailbox(std::unique_ptr<Transport> transport);
  Mailbox(const Mailbox&) = delete;
  Mailbox& operator=(const Mailbox&) = delete;

  // Waits for pending copies: they would write into memory that is freed.
  ~Mailbox();

  // Copies the state at an address into a message, after the earlier work of the stream. Only later
  // work of the stream may change the state. Throws CaptureError if the stream is being captured.
  void post(Stream stream, Address state, std::uint32_t sequence);

  // Returns whether collect() would return without waiting.
  bool arrived(std::uint32_t sequence);

  // Returns a message. Throws Error if it was not posted, is overwritten, or holds another decision
  // or parts of two. A message may be collected again.
  Collected collect(std::uint32_t sequence);

 private:
  struct Message {
    std::unique_ptr<Event> event;           // null on the host
    std::optional<std::uint32_t> sequence;  // of the posted decision
    bool under_way = false;
  };

  void record(Event& event, Stream stream);
  Message* find(std::uint32_t sequence);
  Message& posted_message(std::uint32_t sequence);
  State* place(const Message& message) const;
  bool has_arrived(Message& message);
  bool wait_for_all() noexcept;
  void check_process() const;

  const std::unique_ptr<Transport> transport_;
  const std::unique_ptr<Pinned> memory_;  // one state for each message
  std::array<Message, kMessages> messages_;
  std::size_t next_ = 0;    // the message to use next
  bool untracked_ = false;  // a copy is pending that no event marks
};

}  // namespace adacache::mailbox
