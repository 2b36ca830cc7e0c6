// The Python classes of the arena. adacache_kernels/memory/arena.py checks the arguments and makes
// tensors of slots.
#include "arena/arena.hpp"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bind.hpp"
#include "dlpack.hpp"
#include "owner.hpp"
#include "without_gil.hpp"

namespace py = pybind11;

namespace adacache {
namespace {

using Sizes = std::vector<std::size_t>;
using Version = std::pair<int, int>;
using DeviceKey = std::pair<int, int>;

template <typename T>
struct Owned {
  Owner<T> it;
  dlpack::Device device;
};

using OwnedSlot = Owned<arena::Slot>;
using OwnedLease = Owned<arena::Lease>;
using OwnedArena = Owned<arena::Arena>;

OwnedArena make_arena(const std::string& device_type, int device, std::size_t budget,
                      std::size_t chunk_bytes) {
  if (device_type != "cpu" && device_type != "cuda")
    throw std::invalid_argument("device_type is '" + device_type + "', expected 'cpu' or 'cuda'");
  const bool cuda = device_type == "cuda";
  OwnedArena made{nullptr, {cuda ? dlpack::kCuda : dlpack::kCpu, cuda ? device : 0}};
  without_gil([&] {
    made.it.reset(new arena::Arena(cuda ? arena::Arena::on_cuda(device, budget, chunk_bytes)
                                        : arena::Arena::on_host(budget, chunk_bytes)));
  });
  return made;
}

OwnedLease make_lease(OwnedArena& self) {
  OwnedLease made{nullptr, self.device};
  without_gil([&] { made.it.reset(self.it->lease().release()); });
  return made;
}

void close(OwnedArena& self, Stream stream) {
  without_gil([&] { self.it->close(stream); });
}

py::dict stats(OwnedArena& self) {
  arena::Stats now;
  without_gil([&] { now = self.it->stats(); });
  py::dict dict;
  dict["budget"] = now.budget;
  dict["reserved"] = now.reserved;
  dict["mapped"] = now.mapped;
  dict["peak_mapped"] = now.peak_mapped;
  dict["planned"] = now.planned;
  dict["in_use"] = now.in_use;
  dict["peak_in_use"] = now.peak_in_use;
  dict["chunks"] = now.chunks;
  dict["slots"] = now.slots;
  dict["leases"] = now.leases;
  dict["maps"] = now.maps;
  dict["unmaps"] = now.unmaps;
  dict["failures"] = now.failures;
  dict["is_virtual"] = now.is_virtual;
  dict["why_not_virtual"] = now.why_not_virtual;
  return dict;
}

using Plan = std::vector<arena::Slot> (arena::Lease::*)(const Sizes&, Stream);

template <Plan plan>
std::vector<OwnedSlot> planned(OwnedLease& self, const Sizes& sizes, Stream stream) {
  std::vector<arena::Slot> slots;
  without_gil([&] { slots = (self.it.get()->*plan)(sizes, stream); });
  std::vector<OwnedSlot> held;
  held.reserve(slots.size());
  for (arena::Slot& slot : slots) {
    Owner<arena::Slot> owner(new arena::Slot(std::move(slot)));
    held.push_back({std::move(owner), self.device});
  }
  return held;
}

using Order = void (arena::Lease::*)(Stream);

template <Order order>
void ordered(OwnedLease& self, Stream stream) {
  without_gil([&] { (self.it.get()->*order)(stream); });
}

// `stream` and the arguments of later versions of DLPack are ignored. A slot exports memory, not
// data, so there is nothing to wait for, and a wait would break the capture of a graph.
py::object export_slot(const OwnedSlot& self, const py::object& /*stream*/,
                       std::optional<Version> max_version, std::optional<DeviceKey> device,
                       std::optional<bool> copy, const py::kwargs& /*later*/) {
  if (copy.value_or(false))
    throw py::buffer_error(
        "a slot of an arena exports its own memory, so that "
        "copy=True is not possible: copy the result");
  if (device && *device != DeviceKey(self.device.type, self.device.id))
    throw py::buffer_error("a slot of an arena stays on its device: leave dl_device out");
  const bool versioned = max_version && max_version->first >= 1;
  PyObject* capsule = versioned ? dlpack::make_capsule<dlpack::Versioned>(*self.it, self.device)
                                : dlpack::make_capsule<dlpack::Managed>(*self.it, self.device);
  if (capsule == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(capsule);
}

void bind_errors(py::module_& module) {
  // The last match translates an exception, so derived classes come after their bases.
  auto& error = py::register_exception<Error>(module, "ArenaError", PyExc_RuntimeError);
  auto& memory = py::register_exception<OutOfMemory>(module, "OutOfMemory", error);
  py::register_exception<arena::OverBudget>(module, "OverBudget", memory);
  py::register_exception<CaptureError>(module, "CaptureError", error);
}

}  // namespace

void bind_arena(py::module_& module) {
  bind_errors(module);
  py::class_<OwnedSlot>(module, "Slot")
      .def_property_readonly("address", [](const OwnedSlot& self) { return self.it->address; })
      .def_property_readonly("bytes", [](const OwnedSlot& self) { return self.it->bytes; })
      .def("__dlpack_device__",
           [](const OwnedSlot& self) { return DeviceKey(self.device.type, self.device.id); })
      .def("__dlpack__", &export_slot, py::kw_only(), py::arg("stream") = py::none(),
           py::arg("max_version") = py::none(), py::arg("dl_device") = py::none(),
           py::arg("copy") = py::none());
  py::class_<OwnedLease>(module, "Lease")
      .def("grow", &planned<&arena::Lease::grow>, py::arg("sizes"), py::arg("stream"))
      .def("replan", &planned<&arena::Lease::replan>, py::arg("sizes"), py::arg("stream"))
      .def("release", &ordered<&arena::Lease::release>, py::arg("stream"))
      .def("acquire", &ordered<&arena::Lease::acquire>, py::arg("stream"))
      .def("mark", &ordered<&arena::Lease::mark>, py::arg("stream"));
  py::class_<OwnedArena>(module, "Arena")
      .def(py::init(&make_arena), py::arg("device_type"), py::arg("device"), py::arg("budget"),
           py::arg("chunk_bytes"))
      .def("lease", &make_lease)
      .def("stats", &stats)
      .def("close", &close, py::arg("stream"));
}

}  // namespace adacache
