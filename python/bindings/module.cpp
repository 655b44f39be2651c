#include "module.hpp"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include "cpu/kernels.hpp"
#include "klopf/klopf.hpp"

namespace py = pybind11;

PYBIND11_MODULE(_core, m) {
  using namespace klopf;
  m.doc() = "The compiled engine.";
  m.attr("__version__") = version();
  auto error = py::register_exception<Error>(m, "Error", PyExc_ValueError);
  error.doc() = "A mistake of the caller, in one line.";

  bindings::bind_specs(m);
  bindings::bind_device_array(m);
  bindings::bind_network(m);
  bindings::bind_learner(m);
  bindings::bind_ppo(m);
  bindings::bind_stream(m);

  m.attr("losses") = py::tuple(py::cast(loss_names()));
  m.attr("utilities") = py::tuple(py::cast(utility_names()));
  m.attr("initialisers") = py::tuple(py::cast(initialiser_names()));
  m.def("devices", &devices, "Devices that networks can live on.");
  m.def("gpu_status", &gpu_status, "Which GPUs can be used, or why none can.");
  m.def("set_threads", &set_threads, py::arg("count"),
        "Threads of the CPU (default: KLOPF_NUM_THREADS, or all processors). Results do not depend on it.");
  m.def("get_threads", &get_threads, "Threads of the CPU.");
  m.def(
      "isa", [] { return std::string(cpu::level().name); },
      "Instruction-set level in use; the environment variable KLOPF_ISA chooses another.");
  m.def(
      "isa_levels",
      [] {
        cpu::Level levels[4];
        const int count = cpu::usable_levels(levels);
        std::vector<std::string> names;
        for (int i = 0; i < count; ++i) names.emplace_back(levels[i].name);
        return names;
      },
      "Instruction-set levels this machine can run, lowest first.");
  m.def(
      "permutation",
      [](uint64_t seed, uint32_t stream, int64_t step, int64_t n) {
        const std::vector<int64_t> order = permutation(seed, stream, step, n);
        return py::array_t<int64_t>(static_cast<py::ssize_t>(order.size()), order.data());
      },
      py::arg("seed"), py::arg("stream"), py::arg("step"), py::arg("n"),
      "A permutation of 0 .. n - 1 that depends on (seed, stream, step, n) alone: int64 [n].");
  m.def(
      "synthetic_images",
      [](uint64_t seed, uint32_t class_index, int64_t first, int64_t count, int size) {
        if (count < 0 || size < 1) throw Error("[synthetic_images] count and size must not be negative");
        py::array_t<uint8_t> out(
            {static_cast<py::ssize_t>(count), py::ssize_t{3}, static_cast<py::ssize_t>(size), static_cast<py::ssize_t>(size)});
        uint8_t* data = out.mutable_data();
        const py::gil_scoped_release release;
        synthetic_images(seed, class_index, first, count, size, data);
        return out;
      },
      py::arg("seed"), py::arg("class_index"), py::arg("first"), py::arg("count"), py::arg("size"),
      "Images of a class of the built-in stream: uint8 [count, 3, size, size].");
}
