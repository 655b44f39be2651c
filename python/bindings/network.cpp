#include "klopf/network.hpp"

#include <pybind11/stl.h>

#include <optional>

#include "arrays.hpp"
#include "module.hpp"

namespace klopf::bindings {
namespace {

py::list activities(Network& net, const py::object& x, const py::object& scale, const py::object& offset) {
  const Input in = read_samples("activities", net, x, scale, offset);
  std::vector<std::vector<float>> found;
  {
    const py::gil_scoped_release release;
    found = net.activities(in.samples);
  }
  py::list out;
  for (std::size_t k = 0; k < found.size(); ++k) {
    const Units& g = net.units()[k];
    std::vector<py::ssize_t> shape{net.runs(), in.samples.count, g.units};
    if (net.is_convolution(k)) shape.insert(shape.end(), {g.height, g.width});
    out.append(to_numpy(found[k], shape));
  }
  return out;
}

}  // namespace

void bind_network(py::module_& m) {
  py::class_<Network, std::shared_ptr<Network>>(m, "Network",
                                                "R independent sequential networks of one architecture.\n\nArgs:\n    layers: Linear, Conv2d, MaxPool2d, Flatten, ReLU, ...\n"
                                                "    input_shape: (inputs,) or (channels, height, width)\n    runs: R\n    seeds: one a run; default 0 .. runs - 1\n"
                                                "    init: initial distribution, one of klopf.initialisers\n    device: \"cpu\" or \"auto\"\n\nRaises:\n    klopf.Error: layers that do not fit, "
                                                "unknown names, a device that is not there")
      .def(py::init([](std::vector<Layer> layers, std::vector<int64_t> input_shape, int runs, const std::optional<std::vector<uint64_t>>& seeds, const std::string& init, const std::string& device) {
             if (device != "cpu" && device != "auto") throw Error("[network] device must be \"cpu\" or \"auto\" (this klopf is built for the CPU), got \"" + device + "\"");
             return std::make_shared<Network>(NetworkOptions{std::move(layers), std::move(input_shape), runs, seeds.value_or(std::vector<uint64_t>{}), init});
           }),
           py::arg("layers"), py::arg("input_shape"), py::arg("runs") = 1, py::arg("seeds") = py::none(), py::arg("init") = "kaiming", py::arg("device") = "cpu")
      .def_property_readonly("runs", &Network::runs, "R")
      .def_property_readonly("seeds", [](const Network& net) { return net.options().seeds; }, "One a run.")
      .def_property_readonly("layers", [](const Network& net) { return net.options().layers; })
      .def_property_readonly("input_shape", [](const Network& net) { return py::tuple(py::cast(net.options().input_shape)); }, "(inputs,) or (channels, height, width)")
      .def_property_readonly("init", [](const Network& net) { return net.options().init; }, "Initial distribution.")
      .def_property_readonly("outputs", &Network::outputs, "O")
      .def(
          "__call__",
          [](Network& net, const py::object& x, const py::object& scale, const py::object& offset) {
            const Input in = read_samples("network", net, x, scale, offset);
            std::vector<float> out;
            {
              const py::gil_scoped_release release;
              out = net.infer(in.samples);
            }
            return to_numpy(out, {net.runs(), in.samples.count, net.outputs()});
          },
          py::arg("x"), py::arg("scale") = py::none(), py::arg("offset") = py::none(), "Inference: x [B, ...] shared by all runs, or [R, B, ...] -> [R, B, O].")
      .def("activities", &activities, py::arg("x"), py::arg("scale") = py::none(), py::arg("offset") = py::none(),
           "Activities of every unit group on x, as the next layer sees them: a list of [R, B, U], or [R, B, U, H, W] for filters.")
      .def("state_dict", [](const Network& net) { return to_dict(net.state_dict()); }, "Parameters by name (\"0.weight\" [R, ...], PyTorch's shapes behind R), copied out.")
      .def(
          "load_state_dict", [](Network& net, const py::dict& arrays) { net.load_state_dict(from_dict("load_state_dict", arrays)); }, py::arg("arrays"),
          "Copies parameters in, in place; a live learner keeps its optimizer, unit and random state. Raises Error unless names, shapes and types all fit.")
      .def(
          "reset",
          [](Network& net, const std::optional<std::vector<int>>& layers, const std::string& to) {
            std::vector<int> all;
            for (std::size_t i = 0; 2 * i < net.parameters().size(); ++i) all.push_back(static_cast<int>(i));
            net.reset(layers.value_or(all), to);
          },
          py::arg("layers") = py::none(), py::arg("to") = "initial",
          "Resets weights and biases of layers, counted among those with parameters (negative from the end; None: all): \"zero\", or \"initial\" for a fresh draw.")
      .def("_unit_state", [](const Network& net, int group) { return to_dict(net.unit_state(group)); }, py::arg("group"))
      .def("_unit_groups", [](const Network& net) {
        std::vector<std::tuple<int, int, int>> out;  // layer, next layer, units
        for (std::size_t k = 0; k < net.units().size(); ++k) out.emplace_back(net.units()[k].place, net.units()[k].next_place, net.units()[k].units);
        return out;
      });
}

}  // namespace klopf::bindings
