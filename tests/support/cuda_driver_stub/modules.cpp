// Modules and kernels. A test defines their work by fakecuda_set_callbacks().
#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "graphs.hpp"

namespace fakecuda {
namespace {

// Returns the number of parameters of a kernel, and the bytes of each; less than 0 without a kernel
// of that name. Kernels are numbered from 0 in the order of the requests.
using Describe = int (*)(int kernel, const char* image, const char* name, std::size_t* bytes,
                         int most);

// Runs a kernel with the dimensions of grid and block and the bytes of shared memory. Not 0: it
// failed.
using Launch = int (*)(int kernel, const unsigned* dimensions, const void* const* parameters,
                       int count);

struct Module;

struct Kernel {
  int number = 0;
  std::vector<std::size_t> bytes;  // of parameters
  Module* module = nullptr;        // null: the module is unloaded
};

struct Module {
  std::string image;
  std::vector<std::shared_ptr<Kernel>> kernels;
};

struct State {
  Describe describe = nullptr;
  Launch launch = nullptr;
  int kernels = 0;
  std::map<Module*, std::unique_ptr<Module>> modules;
};

State& state() {
  static State* const made = new State;
  return *made;
}

constexpr int kMostParameters = 64;

std::shared_ptr<Kernel> find_kernel(void* handle) {
  for (const auto& entry : state().modules)
    for (const auto& kernel : entry.second->kernels)
      if (kernel.get() == handle) return kernel;
  misuse("use of a kernel that is none");
  return nullptr;
}

struct Launched {
  std::shared_ptr<Kernel> kernel;
  unsigned dimensions[7];
  std::vector<std::string> parameters;

  Result operator()() const {
    if (kernel->module == nullptr) {
      misuse("a kernel runs after its module was unloaded");
      return cu::kLaunchFailed;
    }
    std::vector<const void*> pointers;
    for (const std::string& parameter : parameters) pointers.push_back(parameter.data());
    const int code = state().launch(kernel->number, dimensions, pointers.data(),
                                    static_cast<int>(pointers.size()));
    return code == 0 ? cu::kSuccess : cu::kLaunchFailed;
  }
};

bool is_launchable(const cu::KernelParameters& wanted) {
  const auto& grid = wanted.grid;
  const auto& block = wanted.block;
  const std::uint64_t threads = std::uint64_t{block[0]} * block[1] * block[2];
  return grid[0] > 0 && grid[1] > 0 && grid[2] > 0 && grid[0] <= 0x7fffffff && grid[1] <= 65535 &&
         grid[2] <= 65535 && threads > 0 && threads <= 1024 && block[2] <= 64 &&
         wanted.shared_bytes <= 232448 && wanted.extra == nullptr;
}

Result prepare(const cu::KernelParameters& wanted, Launched& made) {
  made.kernel = find_kernel(wanted.function);
  if (made.kernel == nullptr) return cu::kInvalidHandle;
  if (!is_launchable(wanted)) return cu::kInvalidValue;
  std::copy(wanted.grid, wanted.grid + 3, made.dimensions);
  std::copy(wanted.block, wanted.block + 3, made.dimensions + 3);
  made.dimensions[6] = wanted.shared_bytes;
  for (std::size_t i = 0; i < made.kernel->bytes.size(); ++i)
    made.parameters.emplace_back(static_cast<const char*>(wanted.parameters[i]),
                                 made.kernel->bytes[i]);
  return cu::kSuccess;
}

}  // namespace

long live_modules(const std::string& kind) {
  return kind == "modules" ? static_cast<long>(state().modules.size()) : -1;
}

}  // namespace fakecuda

using namespace fakecuda;

FAKECUDA_API void fakecuda_set_callbacks(Describe describe, Launch launch) {
  const std::lock_guard<std::recursive_mutex> lock(mutex());
  state().describe = describe;
  state().launch = launch;
}

FAKECUDA_API int cuModuleLoadData(void** made, const void* image) {
  FAKECUDA_ENTER(cuModuleLoadData);
  if (current() == nullptr) return cu::kInvalidContext;
  if (const Result code = unsafe_call("cuModuleLoadData")) return code;
  const auto* text = static_cast<const char*>(image);
  if (std::strstr(text, ".version") == nullptr) return cu::kInvalidImage;
  auto module = std::make_unique<Module>();
  module->image = text;
  *made = module.get();
  state().modules[module.get()] = std::move(module);
  return cu::kSuccess;
}

FAKECUDA_API int cuModuleUnload(void* handle) {
  FAKECUDA_ENTER(cuModuleUnload);
  const auto found = state().modules.find(static_cast<Module*>(handle));
  if (found == state().modules.end()) {
    misuse("cuModuleUnload of what is not loaded");
    return cu::kInvalidHandle;
  }
  if (const Result code = unsafe_call("cuModuleUnload")) return code;
  for (const auto& kernel : found->second->kernels) {
    if (kernel.use_count() > 1) misuse("a module is unloaded that a graph or a stream still uses");
    kernel->module = nullptr;
  }
  state().modules.erase(found);
  return cu::kSuccess;
}

FAKECUDA_API int cuModuleGetFunction(void** made, void* handle, const char* name) {
  FAKECUDA_ENTER(cuModuleGetFunction);
  const auto found = state().modules.find(static_cast<Module*>(handle));
  if (found == state().modules.end()) return cu::kInvalidHandle;
  std::size_t bytes[kMostParameters];
  const int number = state().kernels;
  const char* image = found->second->image.c_str();
  const int count = state().describe == nullptr
                        ? -1
                        : state().describe(number, image, name, bytes, kMostParameters);
  if (count < 0) return cu::kNotFound;
  auto kernel = std::make_shared<Kernel>();
  kernel->number = state().kernels++;
  kernel->bytes.assign(bytes, bytes + count);
  kernel->module = found->first;
  found->second->kernels.push_back(kernel);
  *made = kernel.get();
  return cu::kSuccess;
}

FAKECUDA_API int cuLaunchKernel(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                                unsigned block_x, unsigned block_y, unsigned block_z,
                                unsigned shared_bytes, cu::Stream stream, void** parameters,
                                void** extra) {
  FAKECUDA_ENTER(cuLaunchKernel);
  cu::KernelParameters wanted{
      function, {grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared_bytes, parameters,
      extra};
  Launched launched;
  if (const Result code = prepare(wanted, launched)) return code;
  return submit("cuLaunchKernel", stream, Kind::kKernel, launched);
}

FAKECUDA_API int cuGraphAddKernelNode_v2(void** made, void* handle, void* const* needs,
                                         std::size_t count, const cu::KernelParameters* wanted) {
  FAKECUDA_ENTER(cuGraphAddKernelNode);
  Graph* graph = find_graph(handle);
  std::vector<Node*> nodes;
  if (graph == nullptr || !find_nodes(*graph, needs, count, nodes)) return cu::kInvalidValue;
  Launched launched;
  if (const Result code = prepare(*wanted, launched)) return code;
  Node* node = add_node(*graph, Kind::kKernel, nodes);
  node->run = launched;
  *made = node;
  return cu::kSuccess;
}
