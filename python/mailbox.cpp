// The Python class of the mailbox. adacache_kernels/engine/decision/mailbox.py checks the
// arguments.
#include "mailbox/mailbox.hpp"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "bind.hpp"
#include "mailbox/transport.hpp"
#include "owner.hpp"
#include "without_gil.hpp"

namespace py = pybind11;

namespace adacache {
namespace {

using mailbox::Mailbox;

struct OwnedMailbox {
  Owner<Mailbox> it;
};

OwnedMailbox make_mailbox(int device) {
  OwnedMailbox made;
  without_gil([&] {
    made.it.reset(
        new Mailbox(device < 0 ? mailbox::host_transport() : mailbox::cuda_transport(device)));
  });
  return made;
}

void post(OwnedMailbox& self, Stream stream, Address state, std::uint32_t sequence) {
  without_gil([&] { self.it->post(stream, state, sequence); });
}

bool arrived(OwnedMailbox& self, std::uint32_t sequence) {
  bool there = false;
  without_gil([&] { there = self.it->arrived(sequence); });
  return there;
}

std::pair<std::vector<float>, double> collect(OwnedMailbox& self, std::uint32_t sequence) {
  mailbox::Collected message;
  without_gil([&] { message = self.it->collect(sequence); });
  return {{message.state.begin(), message.state.end()}, message.waited_seconds};
}

}  // namespace

void bind_mailbox(py::module_& module) {
  py::class_<OwnedMailbox>(module, "Mailbox")
      .def(py::init(&make_mailbox), py::arg("device"))
      .def("post", &post, py::arg("stream"), py::arg("address"), py::arg("sequence"))
      .def("arrived", &arrived, py::arg("sequence"))
      .def("collect", &collect, py::arg("sequence"));
}

}  // namespace adacache
