// The Python class of conditional graphs.
#include <pybind11/pybind11.h>

#include "bind.hpp"
#include "graph/conditional_graph.hpp"
#include "owner.hpp"
#include "without_gil.hpp"

namespace py = pybind11;

namespace adacache {
namespace {

using graph::ConditionalGraph;
using graph::GraphHandle;

struct OwnedGraph {
  Owner<ConditionalGraph> it;
};

OwnedGraph make_graph(int device, GraphHandle before, GraphHandle taken, GraphHandle otherwise,
                      Address flag) {
  OwnedGraph made;
  without_gil(
      [&] { made.it.reset(new ConditionalGraph(device, {before, taken, otherwise}, flag)); });
  return made;
}

void launch(OwnedGraph& self, Stream stream) {
  without_gil([&] { self.it->launch(stream); });
}

}  // namespace

void bind_graph(py::module_& module) {
  py::class_<OwnedGraph>(module, "ConditionalGraph")
      .def(py::init(&make_graph), py::arg("device"), py::arg("before"), py::arg("taken"),
           py::arg("otherwise"), py::arg("flag"))
      .def("launch", &launch, py::arg("stream"));
}

}  // namespace adacache
