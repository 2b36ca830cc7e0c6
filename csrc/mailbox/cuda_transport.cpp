#include <cstring>

#include "cuda/context.hpp"
#include "mailbox/transport.hpp"
#include "no_throw.hpp"

namespace adacache::mailbox {
namespace {

using cuda::Context;
using cuda::Driver;
using cuda::Enter;

class CudaMessages final : public Pinned {
 public:
  CudaMessages(const Context& context, std::size_t bytes)
      : context_(context), driver_(context.driver()) {
    const Enter enter(context);
    driver_.check("cuMemHostAlloc", driver_.cuMemHostAlloc(&memory_, bytes, 0));
    std::memset(memory_, 0, bytes);
  }
  ~CudaMessages() override {
    if (memory_ == nullptr || !context_.alive()) return;
    quietly([&] {
      const Enter enter(context_);
      driver_.check_gone("cuMemFreeHost", driver_.cuMemFreeHost(memory_));
    });
  }

  void* data() override { return memory_; }
  void leak() noexcept override { memory_ = nullptr; }

 private:
  const Context& context_;
  const Driver& driver_;
  void* memory_ = nullptr;
};

class CudaTransport final : public Transport {
 public:
  explicit CudaTransport(int device) : context_(device), driver_(context_.driver()) {}

  bool alive() const noexcept override { return context_.alive(); }
  bool capturing(Stream stream) override { return context_.capturing(stream); }
  std::unique_ptr<Event> event() override { return context_.event(); }

  std::unique_ptr<Pinned> pinned(std::size_t bytes) override {
    return std::make_unique<CudaMessages>(context_, bytes);
  }

  void copy(void* to, Address from, std::size_t bytes, Stream stream) override {
    const Enter enter(context_);
    driver_.check("cuMemcpyDtoHAsync",
                  driver_.cuMemcpyDtoHAsync_v2(to, from, bytes, cuda::handle(stream)));
  }

 private:
  const Context context_;
  const Driver& driver_;
};

}  // namespace

std::unique_ptr<Transport> cuda_transport(int device) {
  return std::make_unique<CudaTransport>(device);
}

}  // namespace adacache::mailbox
