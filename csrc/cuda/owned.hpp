// An object of the driver, such as a module or a graph, that is destroyed once.
#pragma once

#include "cuda/context.hpp"
#include "cuda/driver.hpp"
#include "no_throw.hpp"

namespace adacache::cuda {

// Null until the driver writes to put(). The context has to outlive it.
class Owned {
 public:
  using GiveBack = cu::Result (*)(void*);

  Owned(const Context& context, const char* call, GiveBack give_back)
      : context_(context), call_(call), give_back_(give_back) {}
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
  ~Owned() { give_back(); }

  // Destroys the object and returns whether that succeeded. A failed call is not repeated: the
  // driver may have reused the handle.
  bool give_back() noexcept {
    void* const it = it_;
    it_ = nullptr;
    if (it == nullptr || !context_.alive()) return true;
    return quietly([&] {
      const Enter enter(context_);
      context_.driver().check_gone(call_, give_back_(it));
    });
  }

  void** put() { return &it_; }
  void* get() const { return it_; }
  void leak() { it_ = nullptr; }  // never destroy the object

 private:
  const Context& context_;
  const char* const call_;
  const GiveBack give_back_;
  void* it_ = nullptr;
};

}  // namespace adacache::cuda
