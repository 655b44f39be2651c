#include "klopf/network.hpp"

#include <pybind11/stl.h>

#include <optional>

#include "arrays.hpp"
#include "module.hpp"

namespace klopf::bindings {
namespace {

ArrayList activities(Network& net, const ArrayLike& x, const OptionalArrayLike& scale, const OptionalArrayLike& offset) {
  const Input in = read_samples("activities", net, x, scale, offset);
  std::vector<std::vector<float>> found;
  {
    const py::gil_scoped_release release;
    found = net.activities(in.samples);
  }
  ArrayList out;
  for (std::size_t k = 0; k < found.size(); ++k) {
    const Units& g = net.units()[k];
    std::vector<py::ssize_t> shape{net.runs(), in.samples.count, g.units};
    if (net.is_convolution(k)) shape.insert(shape.end(), {g.height, g.width});
    out.append(to_numpy(found[k], shape));
  }
  return out;
}

py::array_t<float> infer(Network& net, const ArrayLike& x, const OptionalArrayLike& scale, const OptionalArrayLike& offset) {
  const Input in = read_samples("network", net, x, scale, offset);
  std::vector<float> out;
  {
    const py::gil_scoped_release release;
    out = net.infer(in.samples);
  }
  return to_numpy(out, {net.runs(), in.samples.count, net.outputs()});
}

DeviceArray infer_on_device(Network& net, const ArrayLike& x, const OptionalArrayLike& scale, const OptionalArrayLike& offset) {
  const Input in = read_samples("network", net, x, scale, offset);
  const py::gil_scoped_release release;
  return net.infer_on_device(in.samples);
}

DeviceArray to_device(const Network& net, const ArrayLike& x) {
  const std::shared_ptr<Memory> memory = net.backend().memory();
  if (!memory) throw Error("[to_device] needs a device of its own, got \"cpu\"");
  const py::array given = py::array::ensure(x);
  if (!given) PyErr_Clear();
  const bool bytes = given && given.dtype().is(py::dtype::of<uint8_t>());
  if (!given || (!bytes && given.dtype().kind() != 'f'))
    throw Error("[to_device] x must be an array of floats or uint8, got " + (given ? std::string(py::str(given.dtype())) : "no array"));
  const py::array values = bytes ? py::array(py::array_t<uint8_t, py::array::c_style>(given))
                                 : py::array(py::array_t<float, py::array::c_style | py::array::forcecast>(given));
  const void* from = values.data();
  const std::vector<int64_t> shape(values.shape(), values.shape() + values.ndim());
  const py::gil_scoped_release release;
  DeviceArray array(memory, bytes ? Type::uint8 : Type::float32, shape);
  memory->to_device(array.data.get(), array.bytes(), from, array.bytes(), array.bytes(), 1);
  return array;
}

std::shared_ptr<Network> make(std::vector<Layer> layers, std::vector<int64_t> input_shape, int runs,
                              const std::optional<std::vector<uint64_t>>& seeds, const std::string& init, const std::string& device,
                              const std::string& precision, int stream) {
  return std::make_shared<Network>(NetworkOptions{std::move(layers), std::move(input_shape), runs, seeds.value_or(std::vector<uint64_t>{}),
                                                  init, device, precision, stream});
}

py::typing::Tuple<int64_t, py::ellipsis> input_shape(const Network& net) { return py::tuple(py::cast(net.options().input_shape)); }

ArrayDict state_dict(const Network& net) { return to_dict(net.state_dict()); }

void load_state_dict(Network& net, const ArrayDict& arrays) { net.load_state_dict(from_dict("load_state_dict", arrays)); }

void reset(Network& net, const std::optional<std::vector<int>>& layers, const std::string& to) {
  if (layers) net.reset(*layers, to);
  else net.reset(to);
}

ArrayDict unit_state(const Network& net, int group) { return to_dict(net.unit_state(group)); }

std::vector<std::tuple<int, int, int>> unit_groups(const Network& net) {
  std::vector<std::tuple<int, int, int>> out;
  for (const Units& group : net.units()) out.emplace_back(group.place, group.next_place, group.units);
  return out;
}

const char* network_doc = R"(R independent sequential networks of one architecture.

Args:
    layers: Linear, Conv2d, MaxPool2d, Flatten, ReLU, ...
    input_shape: (inputs,) or (channels, height, width)
    runs: R
    seeds: one a run; default 0 .. runs - 1
    init: initial distribution, one of klopf.initialisers
    device: one of klopf.devices(), or "auto": the first GPU, or the CPU
    precision: of dense products, "float32"; on a GPU also "tf32", which rounds their factors to ten bits
        behind the point for the tensor cores
    stream: of random numbers: networks of the same seeds draw different weights where it differs

Raises:
    klopf.Error: layers that do not fit, unknown names, a device that is not there)";

const char* activities_doc = R"(Activities of every unit group on x, as the next layer sees them.

Returns:
    one array [R, B, U], or [R, B, U, H, W] of filters, for each group)";

const char* load_state_dict_doc = R"(Copies parameters in, in place; a live learner keeps its optimizer, unit and random state.

Raises:
    klopf.Error: names, shapes or types do not fit)";

const char* reset_doc = R"(Resets weights and biases.

Args:
    layers: counted among those with weights, negative from the end; None: all, and log sigma
    to: "zero", or "initial" for a fresh draw)";

}  // namespace

void bind_network(py::module_& m) {
  const auto none = py::none();
  py::class_<Network, std::shared_ptr<Network>>(m, "Network", network_doc)
      .def(py::init(&make), py::arg("layers"), py::arg("input_shape"), py::arg("runs") = 1, py::arg("seeds") = none,
           py::arg("init") = "kaiming", py::arg("device") = "cpu", py::arg("precision") = "float32", py::arg("stream") = 0)
      .def_property_readonly("runs", &Network::runs, "R")
      .def_property_readonly(
          "seeds", [](const Network& net) { return net.options().seeds; }, "One a run.")
      .def_property_readonly(
          "layers", [](const Network& net) { return net.options().layers; }, "As given.")
      .def_property_readonly("input_shape", &input_shape, "(inputs,) or (channels, height, width)")
      .def_property_readonly(
          "init", [](const Network& net) { return net.options().init; }, "Initial distribution.")
      .def_property_readonly(
          "precision", [](const Network& net) { return net.options().precision; }, "Of dense products.")
      .def_property_readonly(
          "device", [](const Network& net) { return net.options().device; }, "\"cpu\", \"cuda\", \"cuda:1\", ...")
      .def_property_readonly(
          "stream", [](const Network& net) { return net.options().stream; }, "Of random numbers.")
      .def_property_readonly("outputs", &Network::outputs, "O")
      .def("__call__", &infer, py::arg("x"), py::arg("scale") = none, py::arg("offset") = none,
           "Inference: x [B, ...] shared by all runs, or [R, B, ...] -> [R, B, O].")
      .def("infer_on_device", &infer_on_device, py::arg("x"), py::arg("scale") = none, py::arg("offset") = none,
           "The same, left in the memory of the network's device.")
      .def("to_device", &to_device, py::arg("x"),
           "A copy of x, float32 or uint8, in the memory of the network's device, for calls to come.")
      .def_property_readonly("_arithmetic", [](const Network& net) { return net.backend().arithmetic(); })
      .def("activities", &activities, py::arg("x"), py::arg("scale") = none, py::arg("offset") = none, activities_doc)
      .def("state_dict", &state_dict, "Parameters by name (\"0.weight\" [R, ...], PyTorch's shapes behind R), copied out.")
      .def("load_state_dict", &load_state_dict, py::arg("arrays"), load_state_dict_doc)
      .def("reset", &reset, py::arg("layers") = none, py::arg("to") = "initial", reset_doc)
      .def("_unit_state", &unit_state, py::arg("group"), "Ages and statistics of a group's units, by name, [R, U].")
      .def("_unit_groups", &unit_groups, "(layer, next layer, units) of each group.");
}

}  // namespace klopf::bindings
