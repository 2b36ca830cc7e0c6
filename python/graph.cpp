// Graphs that decide by themselves, for Python.
#include <pybind11/pybind11.h>

#include "bind.hpp"
#include "graph/conditional_graph.hpp"
#include "held.hpp"
#include "without_gil.hpp"

namespace py = pybind11;

namespace adacache {
namespace {

using graph::ConditionalGraph;
using graph::GraphHandle;

struct HeldGraph {
  Owner<ConditionalGraph> it;
};

HeldGraph make_graph(int device, GraphHandle before, GraphHandle taken, GraphHandle otherwise,
                     Address flag) {
  HeldGraph made;
  without_gil(
      [&] { made.it.reset(new ConditionalGraph(device, {before, taken, otherwise}, flag)); });
  return made;
}

void launch(HeldGraph& self, Stream stream) {
  without_gil([&] { self.it->launch(stream); });
}

}  // namespace

void bind_graph(py::module_& module) {
  py::class_<HeldGraph>(module, "ConditionalGraph")
      .def(py::init(&make_graph), py::arg("device"), py::arg("before"), py::arg("taken"),
           py::arg("otherwise"), py::arg("flag"))
      .def("launch", &launch, py::arg("stream"));
}

}  // namespace adacache
