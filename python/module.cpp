// The Python module adacache_kernels._C, which exposes csrc/. Tensors arrive as addresses with
// sizes and strides. adacache_kernels/ops/ takes these from the tensors and checks them first.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <sstream>
#include <stdexcept>
#include <string>

#include "bind.hpp"
#include "cpu/instruction_set.hpp"
#include "ops.hpp"

namespace py = pybind11;
using adacache::View;

namespace {

View make_view(std::uintptr_t data, int dtype, const std::vector<std::int64_t>& size,
               const std::vector<std::int64_t>& stride) {
  if (dtype < 0 || dtype > 4) throw std::invalid_argument("dtype must be 0, 1, 2, 3 or 4");
  if (size.size() > 4 || size.size() != stride.size())
    throw std::invalid_argument("size and stride must have the same length, at most 4");
  View view{reinterpret_cast<void*>(data), static_cast<adacache::DType>(dtype), {1, 1, 1, 1}, {}};
  std::copy(size.begin(), size.end(), view.size.end() - size.size());
  std::copy(stride.begin(), stride.end(), view.stride.end() - stride.size());
  return view;
}

adacache::Metric make_metric(int metric) {
  if (metric < 0 || metric > 2) throw std::invalid_argument("metric must be 0, 1 or 2");
  return static_cast<adacache::Metric>(metric);
}

template <typename T>
T* pointer(std::uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

adacache::SlotHolds make_slot_holds(int slot_holds) {
  if (slot_holds < 0 || slot_holds > 1) throw std::invalid_argument("slot_holds must be 0 or 1");
  return static_cast<adacache::SlotHolds>(slot_holds);
}

void distance_update(const View& slot, const View& x_out, const std::optional<View>& x_in,
                     const std::vector<View>& previous, std::uintptr_t coefficients, int slot_holds,
                     const std::vector<std::int64_t>& strides, int metric,
                     const std::optional<View>& scale,
                     const std::vector<std::optional<View>>& previous_scales, std::uintptr_t sums,
                     int threads) {
  if (previous.size() > 3) throw std::invalid_argument("previous must be at most 3 views");
  if (!previous_scales.empty() && previous_scales.size() != previous.size())
    throw std::invalid_argument(
        "previous_scales must be empty, or have one entry for each of previous");
  const bool in_eight_bits =
      slot.dtype == adacache::DType::kInt8 || slot.dtype == adacache::DType::kFloat8;
  if (in_eight_bits != scale.has_value())
    throw std::invalid_argument("a slot must have a scale if and only if it has eight bits");
  const adacache::DistanceUpdate operands{slot,
                                          x_out,
                                          x_in,
                                          previous,
                                          pointer<const float>(coefficients),
                                          make_slot_holds(slot_holds),
                                          strides,
                                          make_metric(metric),
                                          scale,
                                          previous_scales};
  adacache::distance_update(operands, pointer<float>(sums), threads);
}

void conditional_add(const View& out, const View& x, const std::vector<View>& residuals,
                     const std::vector<std::optional<View>>& scales, std::uintptr_t coefficients,
                     std::uintptr_t flag, int threads) {
  if (out.dtype != x.dtype) throw std::invalid_argument("out must have the dtype of x");
  if (residuals.empty() || residuals.size() > 4 || residuals.size() != scales.size())
    throw std::invalid_argument(
        "there must be one to four residuals, and a scale or None for each");
  std::vector<adacache::Term> terms;
  for (std::size_t i = 0; i < residuals.size(); ++i) terms.push_back({residuals[i], scales[i]});
  adacache::conditional_add(out, x, terms, pointer<const float>(coefficients),
                            pointer<const std::int32_t>(flag), threads);
}

adacache::DecideSettings make_settings(int metric, bool apply_moreg, double moreg_a, int moreg_b,
                                       double moreg_d, double mograd_mul, bool uses_mean) {
  return {make_metric(metric), {apply_moreg, moreg_a, moreg_b, moreg_d, mograd_mul}, uses_mean};
}

void decide(std::uintptr_t state, std::uintptr_t sums, const std::array<std::int64_t, 4>& shape,
            std::uintptr_t codebook, std::int64_t entries, const adacache::DecideSettings& settings,
            std::int64_t step, bool has_previous, bool in_window, std::int64_t sequence,
            std::int64_t videos, std::uintptr_t motions) {
  if (videos < 1 || shape[1] % videos != 0)
    throw std::invalid_argument("videos must divide the rows of the sums");
  if (videos > 1 && settings.moreg.apply && motions == 0)
    throw std::invalid_argument("several videos need motions for motion regularization");
  adacache::decide(pointer<float>(state),
                   {pointer<const float>(sums), shape[0], shape[1], shape[2], shape[3]},
                   {pointer<const float>(codebook), entries}, settings,
                   {step, has_previous, in_window, sequence, videos, pointer<float>(motions)});
}

py::dict build_config() {
  std::vector<std::string> architectures;
  std::istringstream list(ADACACHE_CUDA_ARCHITECTURES);
  for (std::string item; list >> item;) architectures.push_back(item);
  py::dict config;
  config["version"] = ADACACHE_VERSION;
  config["compiler"] = ADACACHE_COMPILER;
  config["cuda"] = ADACACHE_CUDA;
  config["cuda_architectures"] = architectures;
  config["cuda_kernels"] = std::vector<std::string>{};
  config["instruction_sets"] = adacache::built_instruction_sets();
  config["instruction_set"] = adacache::kernels().name;
  return config;
}

}  // namespace

PYBIND11_MODULE(_C, module) {
  using release_gil = py::call_guard<py::gil_scoped_release>;
  py::class_<View>(module, "View")
      .def(py::init(&make_view), py::arg("data"), py::arg("dtype"), py::arg("size"),
           py::arg("stride"));
  module.def("distance_update", &distance_update, release_gil(), py::arg("slot"), py::arg("x_out"),
             py::arg("x_in"), py::arg("previous"), py::arg("coefficients"), py::arg("slot_holds"),
             py::arg("strides"), py::arg("metric"), py::arg("scale"), py::arg("previous_scales"),
             py::arg("sums"), py::arg("threads"));
  module.def("residual_update", &adacache::residual_update, release_gil(), py::arg("slot"),
             py::arg("x_out"), py::arg("x_in"), py::arg("threads"));
  module.def("conditional_add", &conditional_add, release_gil(), py::arg("out"), py::arg("x"),
             py::arg("residuals"), py::arg("scales"), py::arg("coefficients"), py::arg("flag"),
             py::arg("threads"));
  py::class_<adacache::DecideSettings>(module, "DecideSettings")
      .def(py::init(&make_settings), py::kw_only(), py::arg("metric"), py::arg("apply_moreg"),
           py::arg("moreg_a"), py::arg("moreg_b"), py::arg("moreg_d"), py::arg("mograd_mul"),
           py::arg("uses_mean"));
  module.def("decide", &decide, release_gil(), py::arg("state"), py::arg("sums"), py::arg("shape"),
             py::arg("codebook"), py::arg("entries"), py::arg("settings"), py::arg("step"),
             py::arg("has_previous"), py::arg("in_window"), py::arg("sequence"), py::arg("videos"),
             py::arg("motions"));
  module.def("instruction_sets", &adacache::instruction_sets);
  module.def("set_instruction_set", &adacache::set_instruction_set, py::arg("name"));
  module.def("build_config", &build_config);
  adacache::bind_arena(module);
  adacache::bind_mailbox(module);
  adacache::bind_graph(module);
}
