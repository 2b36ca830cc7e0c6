// Decisions on their way from the device to the host. design.md next to this file has the
// invariants.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

#include "mailbox/transport.hpp"
#include "stream_event.hpp"

namespace adacache::mailbox {

constexpr std::size_t kStateFloats = 10;        // the first and the last are the sequence number
constexpr std::size_t kMessages = 4;            // a message is kept until this many more are posted
constexpr std::uint32_t kSequences = 1u << 24;  // below: what a float holds exactly

using State = std::array<float, kStateFloats>;

struct Collected {
  State state;
  double waited_seconds = 0;  // more than 0 if, and only if, the host had to wait
};

// Has one owner: not to be used by two threads at once.
class Mailbox {
 public:
  explicit Mailbox(std::unique_ptr<Transport> transport);
  Mailbox(const Mailbox&) = delete;
  Mailbox& operator=(const Mailbox&) = delete;

  // Waits for copies that are under way: they would write into memory that is somebody else's.
  ~Mailbox();

  // The state at that address goes into a message, after all that is on the stream already. It has
  // to be left alone until later work of the stream. Throws CaptureError if the stream is captured.
  void post(Stream stream, Address state, std::uint32_t sequence);

  // Whether collect() would not wait.
  bool arrived(std::uint32_t sequence);

  // Throws Error for a message that was not posted, or is overwritten, or holds another decision
  // than this, or parts of two. The same one may be collected again.
  Collected collect(std::uint32_t sequence);

 private:
  struct Message {
    std::unique_ptr<Event> event;           // null on the host
    std::optional<std::uint32_t> sequence;  // of what was posted
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
  bool untracked_ = false;  // there is a copy of whose end no event tells
};

}  // namespace adacache::mailbox
