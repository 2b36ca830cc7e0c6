#pragma once

#include <pybind11/pybind11.h>

namespace adacache {

// Binds Arena, Lease, Slot and their exceptions.
void bind_arena(pybind11::module_& module);

// Binds Mailbox.
void bind_mailbox(pybind11::module_& module);

// Binds ConditionalGraph.
void bind_graph(pybind11::module_& module);

}  // namespace adacache
