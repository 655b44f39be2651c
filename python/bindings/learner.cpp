#include "klopf/learner.hpp"

#include <pybind11/stl.h>

#include "arrays.hpp"
#include "dlpack.hpp"
#include "module.hpp"

namespace klopf::bindings {
namespace {

// What Python code gets: NumPy arrays of its own. Those of a step are made when first read: a small step costs no more than they do.
struct StepOut {
  Later<StepResult> result;
  py::object loss, accuracy, replaced;
};
// Of epochs [R, epochs], or of an evaluation [R].
template <class Result>
struct MeansOut {
  Later<Result> result;
  std::vector<py::ssize_t> shape;
  py::object loss, accuracy;
};
using HistoryOut = MeansOut<History>;
using EvaluationOut = MeansOut<Evaluation>;

// What a device may still be working on.
template <class Out>
auto& waited(Out& out) {
  const py::gil_scoped_release release;
  return out.result.get();
}

MaskList masks(const std::vector<std::vector<uint8_t>>& replaced, py::ssize_t runs) {
  MaskList out;
  for (const std::vector<uint8_t>& group : replaced) {
    py::array_t<bool> mask({runs, static_cast<py::ssize_t>(group.size()) / runs});
    std::copy(group.begin(), group.end(), mask.mutable_data());
    out.append(std::move(mask));
  }
  return out;
}

py::array_t<double> each_run(const std::vector<double>& values) { return to_numpy(values, {static_cast<py::ssize_t>(values.size())}); }

template <class Make>
auto kept(py::object& place, Make make) {
  if (!place) place = make();
  return py::reinterpret_borrow<decltype(make())>(place);
}
py::array_t<double> loss(StepOut& out) {
  return kept(out.loss, [&] { return each_run(waited(out).loss); });
}
py::array_t<double> accuracy(StepOut& out) {
  return kept(out.accuracy, [&] { return each_run(waited(out).accuracy); });
}
MaskList replaced(StepOut& out) {
  return kept(out.replaced, [&] {
    const StepResult& result = waited(out);
    return masks(result.replaced, static_cast<py::ssize_t>(result.loss.size()));
  });
}
template <class Result>
py::array_t<double> mean_loss(MeansOut<Result>& out) {
  return kept(out.loss, [&] { return to_numpy(waited(out).loss, out.shape); });
}
template <class Result>
py::array_t<double> mean_accuracy(MeansOut<Result>& out) {
  return kept(out.accuracy, [&] { return to_numpy(waited(out).accuracy, out.shape); });
}

Input read(const char* where, Learner& learner, const ArrayLike& x, const ArrayLike& y, const OptionalArrayLike& scale,
           const OptionalArrayLike& offset) {
  Input in = read_samples(where, learner.network(), x, scale, offset);
  read_targets(where, learner.network(), learner.classification(), learner.target_size(), y, in);
  return in;
}

StepOut step(Learner& learner, const ArrayLike& x, const ArrayLike& y, const OptionalArrayLike& scale, const OptionalArrayLike& offset) {
  const Input in = read("learner.step", learner, x, y, scale, offset);
  const py::gil_scoped_release release;
  return {learner.step_later(in.samples), {}, {}, {}};
}

HistoryOut run(Learner& learner, const ArrayLike& x, const ArrayLike& y, int64_t batch_size, int64_t epochs, bool shuffle,
               const OptionalArrayLike& scale, const OptionalArrayLike& offset, bool allow_host_rules) {
  const Input in = read("learner.run", learner, x, y, scale, offset);
  const RunOptions options{batch_size, epochs, shuffle,
                           [] {
                             const py::gil_scoped_acquire acquire;
                             if (PyErr_CheckSignals() != 0) throw py::error_already_set();
                           },
                           allow_host_rules};
  const std::vector<py::ssize_t> shape{learner.network().runs(), epochs};
  const py::gil_scoped_release release;
  return {learner.run_later(in.samples, options), shape, {}, {}};
}

EvaluationOut evaluate(Learner& learner, const ArrayLike& x, const ArrayLike& y, const OptionalArrayLike& scale,
                       const OptionalArrayLike& offset) {
  const Input in = read("learner.evaluate", learner, x, y, scale, offset);
  const std::vector<py::ssize_t> shape{learner.network().runs()};
  const py::gil_scoped_release release;
  return {learner.evaluate_later(in.samples), shape, {}, {}};
}

py::array_t<float> forward(Learner& learner, const ArrayLike& x, const OptionalArrayLike& scale, const OptionalArrayLike& offset) {
  const Input in = read_samples("learner.forward", learner.network(), x, scale, offset);
  std::vector<float> out;
  {
    const py::gil_scoped_release release;
    out = learner.forward(in.samples);
  }
  return to_numpy(out, {learner.network().runs(), in.samples.count, learner.network().outputs()});
}

DeviceArray forward_on_device(Learner& learner, const ArrayLike& x, const OptionalArrayLike& scale, const OptionalArrayLike& offset) {
  const Input in = read_samples("learner.forward", learner.network(), x, scale, offset);
  const py::gil_scoped_release release;
  return learner.forward_on_device(in.samples);
}

void backward(Learner& learner, const ArrayLike& grad_y) {
  if (const auto foreign = on_device("learner.backward", "grad_y", grad_y, learner.network().backend().memory().get())) {
    const std::vector<py::ssize_t>& shape = foreign->shape;
    if (!foreign->has_type<float>() || shape.size() != 3 || shape[0] != learner.network().runs() || shape[2] != learner.network().outputs())
      throw Error("[learner.backward] grad_y must be float32 of shape [" + std::to_string(learner.network().runs()) + ", B, " +
                  std::to_string(learner.network().outputs()) + "]");
    const py::gil_scoped_release release;
    return learner.backward(static_cast<const float*>(foreign->data), shape[1], true);
  }
  const auto grad = py::array_t<float, py::array::c_style | py::array::forcecast>::ensure(grad_y);
  const py::ssize_t runs = learner.network().runs(), outputs = learner.network().outputs();
  if (!grad) PyErr_Clear();
  if (!grad || grad.ndim() != 3 || grad.shape(0) != runs || grad.shape(2) != outputs)
    throw Error("[learner.backward] grad_y must have shape [" + std::to_string(runs) + ", B, " + std::to_string(outputs) + "], got " +
                (grad ? shape_text(grad) : "no array"));
  const py::gil_scoped_release release;
  learner.backward(grad.data(), grad.shape(1));
}

MaskList apply(Learner& learner) {
  std::vector<std::vector<uint8_t>> replaced;
  {
    const py::gil_scoped_release release;
    replaced = learner.apply();
  }
  return masks(replaced, learner.network().runs());
}

ArrayDict step_sizes(const Learner& learner) { return to_dict(learner.step_sizes()); }

ArrayDict gradients(const Learner& learner) { return to_dict(learner.gradients()); }

void on_pause(Learner& learner, const py::typing::Callable<void(std::size_t)>& turn) {
  learner.on_pause([turn](std::size_t index) {
    const py::gil_scoped_acquire acquire;
    turn(index);
  });
}

// [R, B, U], or [R, B, U, H, W] of filters.
py::array_t<float> of_samples(const Learner& learner, const std::vector<float>& values, std::size_t group) {
  const Network& net = learner.network();
  const Units& g = net.units().at(group);
  std::vector<py::ssize_t> shape{net.runs(), learner.batch_now(), g.units};
  if (net.is_convolution(group)) shape.insert(shape.end(), {g.height, g.width});
  return to_numpy(values, shape);
}

using Masks = py::array_t<bool, py::array::c_style>;
std::vector<uint8_t> bytes_of(const Masks& units) { return {units.data(), units.data() + units.size()}; }

void replace_now(Learner& learner, std::size_t group, const Masks& units) { learner.replace_now(group, bytes_of(units)); }

// A column for each number of an event.
ArrayDict events(const Learner& learner) {
  const std::vector<Event> found = learner.events();
  ArrayDict out;
  const auto column = [&]<class T>(const char* name, T Event::* member) {
    std::vector<T> values;
    for (const Event& event : found) values.push_back(event.*member);
    out[py::str(name)] = to_numpy(values, {static_cast<py::ssize_t>(values.size())});
  };
  column("run", &Event::run);
  column("group", &Event::group);
  column("unit", &Event::unit);
  column("step", &Event::step);
  column("age", &Event::age);
  column("utility", &Event::utility);
  column("cause", &Event::cause);
  return out;
}

py::array_t<int64_t> events_counted(const Learner& learner) {
  const std::vector<int64_t> counted = learner.events_counted();
  return to_numpy(counted, {static_cast<py::ssize_t>(counted.size())});
}

py::array_t<bool> alive(const Learner& learner) {
  const auto alive = learner.alive();
  py::array_t<bool> out(static_cast<py::ssize_t>(alive.size()));
  std::copy(alive.begin(), alive.end(), out.mutable_data());
  return out;
}

ArrayDict state(const Learner& learner) { return to_dict(learner.state()); }

void load_state(Learner& learner, const ArrayDict& arrays) { learner.load_state(from_dict("load_state", arrays)); }

const char* learner_doc = R"(A network that learns: loss, optimizer, then rules, every step.

Args:
    network: what learns; shared, not copied
    loss: "cross_entropy", "mse", "squared_error", or ClippedPolicy(...)
    optimizer: one of klopf.optimizers: SGD, Adam, IDBD, Autostep, ObGD, AdaptiveObGD, MetaOptimize
    rules: ContinualBackprop, ShrinkAndPerturb, ... in order
    max_gradient_norm: longer gradients of a batch are made as long as this; None: no limit
    events: how many replacements of units are kept in mind, the last ones of each run, for events()

Raises:
    klopf.Error: unknown names, numbers out of range, rules that exclude each other)";

const char* step_doc = R"(One update from a batch.

Args:
    x: [B, ...] shared by all runs, or [R, B, ...]: float32, float64, or uint8 with scale and offset
    y: integers [B] or [R, B] for cross_entropy, else floats [B, O] or [R, B, O]; for ClippedPolicy in the place of O
        the action, the logarithm of its probability, and its advantage
    scale: one number or [C]: x * scale + offset is what the network sees
    offset: one number or [C])";

const char* run_doc = R"(Whole epochs, in an order drawn anew each epoch.

Ctrl-C is answered between epochs.

Args:
    x: [N, ...] shared by all runs, or [R, N, ...], as step() takes it
    y: as step() takes it
    batch_size: samples of a step; a last partial batch is used
    epochs: passes over x
    shuffle: False: always in the given order
    scale: one number or [C]: x * scale + offset is what the network sees
    offset: one number or [C]
    allow_host_rules: go on although rules in Python have a turn at every step, for which all runs wait)";

const char* step_sizes_doc = R"(Every weight's step size, named and shaped like state_dict(), where they follow from what is learned.

ObGD's and AdaptiveObGD's are those of the last step, after the bound; with scope="weight", before it. Of AdaptiveObGD,
MetaOptimize and Intentional they are before gradients are divided by their root mean square.

Raises:
    klopf.Error: the optimizer has one step size for all weights)";

const char* restart_doc = R"(Everything anew: weights redrawn, optimizer and statistics of units cleared, frozen runs alive.

Counters and the random position go on.)";

const char* load_state_doc = R"(What state() gave, back in place.

Raises:
    klopf.Error: names, shapes or types do not fit)";

}  // namespace

void bind_learner(py::module_& m) {
  py::class_<StepOut>(m, "Step", "What one step did.")
      .def_property_readonly("loss", &loss, "[R], NaN for runs that are no longer alive")
      .def_property_readonly("accuracy", &accuracy, "[R] on the batch before the update; of a policy the share that was clipped; else NaN")
      .def_property_readonly("replaced", &replaced, "One bool mask [R, U] for each unit group.");
  py::class_<HistoryOut>(m, "History", "Means over each epoch's samples, while learning.")
      .def_property_readonly("loss", &mean_loss<History>, "[R, epochs]")
      .def_property_readonly("accuracy", &mean_accuracy<History>, "[R, epochs]");
  py::class_<EvaluationOut>(m, "Evaluation", "Means over samples, without learning.")
      .def_property_readonly("loss", &mean_loss<Evaluation>, "[R]")
      .def_property_readonly("accuracy", &mean_accuracy<Evaluation>, "[R]");

  const auto none = py::none();
  py::class_<Learner, std::shared_ptr<Learner>>(m, "Learner", learner_doc)
      .def(py::init([](std::shared_ptr<Network> network, const LossSpec& loss, const Optimizer& optimizer, const std::vector<Rule>& rules,
                       const OptionalArrayLike& max_gradient_norm, int events) {
             return std::make_shared<Learner>(std::move(network), loss, optimizer, rules, max_norm("learner", max_gradient_norm), events);
           }),
           py::arg("network").none(false), py::kw_only(), py::arg("loss"), py::arg("optimizer"), py::arg("rules") = std::vector<Rule>{},
           py::arg("max_gradient_norm") = none, py::arg("events") = 0)
      .def("step", &step, py::arg("x"), py::arg("y"), py::arg("scale") = none, py::arg("offset") = none, step_doc)
      .def("run", &run, py::arg("x"), py::arg("y"), py::kw_only(), py::arg("batch_size") = 100, py::arg("epochs") = 1,
           py::arg("shuffle") = true, py::arg("scale") = none, py::arg("offset") = none, py::arg("allow_host_rules") = false, run_doc)
      .def("evaluate", &evaluate, py::arg("x"), py::arg("y"), py::arg("scale") = none, py::arg("offset") = none,
           "Loss and accuracy on x, y, as step() takes them; nothing learns.")
      .def("forward", &forward, py::arg("x"), py::arg("scale") = none, py::arg("offset") = none,
           "Outputs [R, B, O]; activations are kept for backward().")
      .def("forward_on_device", &forward_on_device, py::arg("x"), py::arg("scale") = none, py::arg("offset") = none,
           "The same, left in the memory of the network's device.")
      .def("backward", &backward, py::arg("grad_y"), "Gradients from dL/dy [R, B, O] of the last forward().")
      .def("apply", &apply, "Optimizer, then rules, from the gradients of backward(); the masks [R, U] of replaced units.")
      .def("gradients", &gradients, "Gradients of the last backward(), named and shaped like state_dict().")
      .def("step_sizes", &step_sizes, step_sizes_doc)
      .def("restart", &Learner::restart, restart_doc)
      .def_property_readonly("alive", &alive, "bool [R]: False for runs frozen because their loss or weights were no longer finite.")
      .def("_events", &events)
      .def("_events_counted", &events_counted)
      .def("_on_pause", &on_pause, py::arg("turn"))
      .def(
          "_activities", [](const Learner& l, std::size_t group) { return of_samples(l, l.activities_now(group), group); },
          py::arg("group"))
      .def(
          "_errors", [](const Learner& l, std::size_t group) { return of_samples(l, l.errors_now(group), group); }, py::arg("group"))
      .def("_gradients", [](const Learner& l) { return to_dict(l.gradients_now()); })
      .def("_replace", &replace_now, py::arg("group"), py::arg("units"))
      .def(
          "_add_units", [](Learner& l, std::size_t group, const Masks& units) { l.add_units(group, bytes_of(units)); }, py::arg("group"),
          py::arg("units"))
      .def(
          "_remove_units", [](Learner& l, std::size_t group, const Masks& units) { l.remove_units(group, bytes_of(units)); },
          py::arg("group"), py::arg("units"))
      .def("_updates", &Learner::updates)
      .def("_replaced", [](const Learner& l) { return masks(l.replaced_last(), l.network().runs()); })
      .def("state", &state, "Everything that learning depends on, by name, arrays [R, ...].")
      .def("load_state", &load_state, py::arg("arrays"), load_state_doc);
}

}  // namespace klopf::bindings
