#include "cuda/driver.hpp"

#ifdef __linux__
#include <dlfcn.h>
#endif

namespace adacache::cuda {
namespace {

#ifdef __linux__

using GetProcAddress = cu::Result (*)(const char*, void**, int, std::uint64_t, int*);

// Finds a function in exactly the version that is declared here: by cuGetProcAddress, or by its
// exported name if the driver is too old for that.
class Symbols {
 public:
  explicit Symbols(void* library)
      : library_(library),
        ask_(reinterpret_cast<GetProcAddress>(dlsym(library, "cuGetProcAddress_v2"))) {}

  void* find(const char* symbol, const char* name, int version) const {
    if (ask_ == nullptr) return dlsym(library_, symbol);
    void* function = nullptr;
    return ask_(name, &function, version, 0, nullptr) == cu::kSuccess ? function : nullptr;
  }

 private:
  void* library_;
  GetProcAddress ask_;
};

template <typename Function>
void load(Function& function, const Symbols& symbols, const char* symbol, const char* name,
          int version, std::string& problem) {
  function = reinterpret_cast<Function>(symbols.find(symbol, name, version));
  if (function == nullptr && problem.empty())
    problem = std::string("the CUDA driver has no ") + symbol + ": it is too old";
}

#endif

}  // namespace

Failure Driver::failure(const char* call, cu::Result code) const {
  const char* name = nullptr;
  if (cuGetErrorName(code, &name) != cu::kSuccess || name == nullptr) name = "an unknown code";
  return {call, code, name, code == cu::kOutOfMemory};
}

void Driver::check(const char* call, cu::Result code) const {
  if (code != cu::kSuccess) throw CallFailed(failure(call, code));
}

void Driver::check_gone(const char* call, cu::Result code) const {
  if (code != cu::kDeinitialized) check(call, code);
}

Driver load_driver() {
  Driver result;
#ifdef __linux__
  void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* reason = dlerror();
    result.problem = std::string("no CUDA driver: ") + (reason ? reason : "libcuda.so.1");
    return result;
  }
  const Symbols symbols(library);
#define ADACACHE_LOAD(symbol, name, version, ...) \
  load(result.symbol, symbols, #symbol, name, version, result.problem);
  ADACACHE_CUDA_FUNCTIONS(ADACACHE_LOAD)
#undef ADACACHE_LOAD
#define ADACACHE_LOAD(symbol, name, version, ...) \
  load(result.symbol, symbols, #symbol, name, version, result.no_virtual_memory);
  ADACACHE_CUDA_VIRTUAL_MEMORY_FUNCTIONS(ADACACHE_LOAD)
#undef ADACACHE_LOAD
#define ADACACHE_LOAD(symbol, name, version, ...) \
  load(result.symbol, symbols, #symbol, name, version, result.no_graphs);
  ADACACHE_CUDA_GRAPH_FUNCTIONS(ADACACHE_LOAD)
#undef ADACACHE_LOAD
#else
  result.problem = "no CUDA driver: only Linux is supported";
#endif
  return result;
}

const Driver& driver() {
  static const Driver* const loaded = new Driver(load_driver());
  return *loaded;
}

}  // namespace adacache::cuda
