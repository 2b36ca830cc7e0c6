// What the driver has made and gets back once.
#pragma once

#include "cuda/context.hpp"
#include "cuda/driver.hpp"
#include "quietly.hpp"

namespace adacache::cuda {

// A module or a graph. Null until put() is filled. The context has to live longer.
class Owned {
 public:
  using GiveBack = cu::Result (*)(void*);

  Owned(const Context& context, const char* call, GiveBack give_back)
      : context_(context), call_(call), give_back_(give_back) {}
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
  ~Owned() {
    if (it_ == nullptr || !context_.alive()) return;
    quietly([&] {
      const Enter enter(context_);
      context_.driver().check_gone(call_, give_back_(it_));
    });
  }

  void** put() { return &it_; }
  void* get() const { return it_; }
  void leave() { it_ = nullptr; }  // it is never given back

 private:
  const Context& context_;
  const char* const call_;
  const GiveBack give_back_;
  void* it_ = nullptr;
};

}  // namespace adacache::cuda
