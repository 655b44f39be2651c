#pragma once
#include <pybind11/pybind11.h>

namespace klopf::bindings {

void bind_specs(pybind11::module_& m);
void bind_device_array(pybind11::module_& m);
void bind_network(pybind11::module_& m);
void bind_learner(pybind11::module_& m);
void bind_ppo(pybind11::module_& m);
void bind_stream(pybind11::module_& m);

}  // namespace klopf::bindings
