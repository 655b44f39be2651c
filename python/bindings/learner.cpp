#include "klopf/learner.hpp"

#include <pybind11/stl.h>

#include "arrays.hpp"
#include "module.hpp"

namespace klopf::bindings {
namespace {

// What Python code gets: NumPy arrays of its own.
struct StepOut {
  py::array_t<double> loss, accuracy;
  py::list replaced;
};
struct HistoryOut {
  py::array_t<double> loss, accuracy;
};
struct EvaluationOut {
  py::array_t<double> loss, accuracy;
};

py::list masks(const Network& net, const std::vector<std::vector<uint8_t>>& replaced) {
  py::list out;
  for (std::size_t k = 0; k < replaced.size(); ++k) {
    py::array_t<bool> mask({net.runs(), net.units()[k].units});
    std::copy(replaced[k].begin(), replaced[k].end(), mask.mutable_data());
    out.append(std::move(mask));
  }
  return out;
}

Input read(const char* where, Learner& learner, const py::object& x, const py::object& y, const py::object& scale, const py::object& offset) {
  Input in = read_samples(where, learner.network(), x, scale, offset);
  read_targets(where, learner.network(), learner.classification(), y, in);
  return in;
}

StepOut step(Learner& learner, const py::object& x, const py::object& y, const py::object& scale, const py::object& offset) {
  const Input in = read("learner.step", learner, x, y, scale, offset);
  StepResult result;
  {
    const py::gil_scoped_release release;
    result = learner.step(in.samples);
  }
  const py::ssize_t runs = learner.network().runs();
  return {to_numpy(result.loss, {runs}), to_numpy(result.accuracy, {runs}), masks(learner.network(), result.replaced)};
}

HistoryOut run(Learner& learner, const py::object& x, const py::object& y, int64_t batch_size, int64_t epochs, bool shuffle, const py::object& scale, const py::object& offset) {
  if (batch_size < 1) throw Error("[learner.run] batch_size must be at least 1, got " + std::to_string(batch_size));
  if (epochs < 0) throw Error("[learner.run] epochs must not be negative, got " + std::to_string(epochs));
  const Input in = read("learner.run", learner, x, y, scale, offset);
  RunOptions options{batch_size, epochs, shuffle, [] {
                       const py::gil_scoped_acquire acquire;
                       if (PyErr_CheckSignals() != 0) throw py::error_already_set();
                     }};
  History history;
  {
    const py::gil_scoped_release release;
    history = learner.run(in.samples, options);
  }
  const py::ssize_t runs = learner.network().runs();
  return {to_numpy(history.loss, {runs, epochs}), to_numpy(history.accuracy, {runs, epochs})};
}

EvaluationOut evaluate(Learner& learner, const py::object& x, const py::object& y, const py::object& scale, const py::object& offset) {
  const Input in = read("learner.evaluate", learner, x, y, scale, offset);
  Evaluation result;
  {
    const py::gil_scoped_release release;
    result = learner.evaluate(in.samples);
  }
  const py::ssize_t runs = learner.network().runs();
  return {to_numpy(result.loss, {runs}), to_numpy(result.accuracy, {runs})};
}

py::array_t<float> forward(Learner& learner, const py::object& x, const py::object& scale, const py::object& offset) {
  const Input in = read_samples("learner.forward", learner.network(), x, scale, offset);
  std::vector<float> out;
  {
    const py::gil_scoped_release release;
    out = learner.forward(in.samples);
  }
  return to_numpy(out, {learner.network().runs(), in.samples.count, learner.network().outputs()});
}

void backward(Learner& learner, const py::object& grad_y) {
  const auto grad = py::array_t<float, py::array::c_style | py::array::forcecast>::ensure(grad_y);
  const py::ssize_t runs = learner.network().runs(), outputs = learner.network().outputs();
  if (!grad) PyErr_Clear();
  if (!grad || grad.ndim() != 3 || grad.shape(0) != runs || grad.shape(2) != outputs)
    throw Error("[learner.backward] grad_y must have shape [" + std::to_string(runs) + ", B, " + std::to_string(outputs) + "], got " + (grad ? shape_text(grad) : "no array"));
  const py::gil_scoped_release release;
  learner.backward(grad.data(), grad.shape(1));
}

}  // namespace

void bind_learner(py::module_& m) {
  py::class_<StepOut>(m, "Step", "What one step did.")
      .def_readonly("loss", &StepOut::loss, "[R], NaN for runs that are no longer alive")
      .def_readonly("accuracy", &StepOut::accuracy, "[R] on the batch before the update; NaN unless the loss classifies")
      .def_readonly("replaced", &StepOut::replaced, "One bool mask [R, U] for each unit group.");
  py::class_<HistoryOut>(m, "History", "Means over each epoch's samples, while learning.")
      .def_readonly("loss", &HistoryOut::loss, "[R, epochs]")
      .def_readonly("accuracy", &HistoryOut::accuracy, "[R, epochs]");
  py::class_<EvaluationOut>(m, "Evaluation", "Means over samples, without learning.")
      .def_readonly("loss", &EvaluationOut::loss, "[R]")
      .def_readonly("accuracy", &EvaluationOut::accuracy, "[R]");

  const auto none = py::none();
  py::class_<Learner, std::shared_ptr<Learner>>(m, "Learner",
                                                "A network that learns: loss, optimizer, then rules, every step.\n\nArgs:\n    network: what learns; shared, not copied\n"
                                                "    loss: \"cross_entropy\", \"mse\" or \"squared_error\"\n    optimizer: SGD, Adam\n    rules: ContinualBackprop, ShrinkAndPerturb, ... in order\n\n"
                                                "Raises:\n    klopf.Error: unknown names, numbers out of range, rules that exclude each other")
      .def(py::init([](std::shared_ptr<Network> network, const std::string& loss, const Optimizer& optimizer, const std::vector<Rule>& rules) {
             return std::make_shared<Learner>(std::move(network), loss, optimizer, rules);
           }),
           py::arg("network"), py::kw_only(), py::arg("loss"), py::arg("optimizer"), py::arg("rules") = std::vector<Rule>{})
      .def("step", &step, py::arg("x"), py::arg("y"), py::arg("scale") = none, py::arg("offset") = none,
           "One update from a batch. x [B, ...] or [R, B, ...] float32, float64 or uint8 (with scale and offset, a number or [C]: float = x * scale + offset); y integers [B] or [R, B], or floats "
           "[B, O] or [R, B, O].")
      .def("run", &run, py::arg("x"), py::arg("y"), py::kw_only(), py::arg("batch_size") = 100, py::arg("epochs") = 1, py::arg("shuffle") = true, py::arg("scale") = none, py::arg("offset") = none,
           "Whole epochs over x [N, ...] or [R, N, ...], in batches (a last partial one is used), in an order drawn anew each epoch. Ctrl-C is answered between epochs.")
      .def("evaluate", &evaluate, py::arg("x"), py::arg("y"), py::arg("scale") = none, py::arg("offset") = none, "Loss and accuracy on x, y; nothing learns.")
      .def("forward", &forward, py::arg("x"), py::arg("scale") = none, py::arg("offset") = none, "Outputs [R, B, O]; activations are kept for backward().")
      .def("backward", &backward, py::arg("grad_y"), "Gradients from dL/dy [R, B, O] of the last forward().")
      .def(
          "apply", [](Learner& learner) { return masks(learner.network(), learner.apply()); }, "Optimizer, then rules, from the gradients of backward(); the masks [R, U] of replaced units.")
      .def("gradients", [](const Learner& learner) { return to_dict(learner.gradients()); }, "Gradients of the last backward(), named and shaped like state_dict().")
      .def("restart", &Learner::restart, "Everything anew: weights redrawn, optimizer and statistics of units cleared, frozen runs alive; counters and random position go on.")
      .def_property_readonly(
          "alive", [](const Learner& learner) { return to_numpy(learner.alive(), {static_cast<py::ssize_t>(learner.alive().size())}).attr("astype")("bool"); },
          "bool [R]: False for runs frozen because their loss or weights were no longer finite.")
      .def("state", [](const Learner& learner) { return to_dict(learner.state()); }, "Everything that learning depends on, by name, arrays [R, ...].")
      .def(
          "load_state", [](Learner& learner, const py::dict& arrays) { learner.load_state(from_dict("load_state", arrays)); }, py::arg("arrays"),
          "What state() gave, back in place. Raises Error unless names, shapes and types all fit.");
}

}  // namespace klopf::bindings
