// Layers, optimizers and rules: constructors, attributes and repr from the fields that each structure lists.
#include <pybind11/stl.h>

#include <cmath>

#include "arrays.hpp"
#include "klopf/learner.hpp"
#include "module.hpp"

namespace klopf::bindings {
namespace {

// How a field's type looks in Python, and how its value comes and goes.
template <class T>
struct Field;
template <>
struct Field<int> {
  static constexpr const char* hint = "int";
  static bool read(const py::handle& h, int& out) {
    if (!PyLong_Check(h.ptr()) && !PyIndex_Check(h.ptr())) return false;
    const long long value = PyLong_AsLongLong(py::int_(py::reinterpret_borrow<py::object>(h)).ptr());
    if (value < INT32_MIN || value > INT32_MAX) {
      PyErr_Clear();
      return false;
    }
    out = static_cast<int>(value);
    return true;
  }
  static py::object write(int v) { return py::int_(v); }
};
template <>
struct Field<std::optional<int>> {
  static constexpr const char* hint = Field<int>::hint;
  static bool read(const py::handle& h, std::optional<int>& out) { return Field<int>::read(h, out.emplace()); }
  static py::object write(const std::optional<int>& v) { return v ? Field<int>::write(*v) : py::none(); }
};
template <>
struct Field<bool> {
  static constexpr const char* hint = "bool";
  static bool read(const py::handle& h, bool& out) {
    if (!PyBool_Check(h.ptr())) return false;
    out = h.ptr() == Py_True;
    return true;
  }
  static py::object write(bool v) { return py::bool_(v); }
};
template <>
struct Field<double> {
  static constexpr const char* hint = "float";
  static bool read(const py::handle& h, double& out) {
    if (PyBool_Check(h.ptr())) return false;
    out = PyFloat_AsDouble(h.ptr());
    if (!PyErr_Occurred()) return true;
    PyErr_Clear();
    return false;
  }
  static py::object write(double v) { return py::float_(v); }
};
template <>
struct Field<std::string> {
  static constexpr const char* hint = "str";
  static bool read(const py::handle& h, std::string& out) {
    if (!py::isinstance<py::str>(h)) return false;
    out = py::str(h);
    return true;
  }
  static py::object write(const std::string& v) { return py::str(v); }
};
template <>
struct Field<PerRun> {
  static constexpr const char* hint = "float | collections.abc.Sequence[float] | numpy.typing.NDArray[typing.Any]";
  static bool read(const py::handle& h, PerRun& out) {
    double one;
    if (!py::isinstance<py::array>(h) && Field<double>::read(h, one)) {
      out = PerRun(one);
      return true;
    }
    if (py::isinstance<py::str>(h)) return false;
    const auto a = py::array_t<double, py::array::c_style | py::array::forcecast>::ensure(h);
    if (!a) PyErr_Clear();
    if (!a || a.ndim() > 1 || a.size() == 0) return false;
    out = PerRun(std::vector<double>(a.data(), a.data() + a.size()));
    return true;
  }
  static py::object write(const PerRun& v) {
    if (v.values.size() == 1) return py::float_(v.values[0]);
    return py::cast(v.values);
  }
};

template <>
struct Field<std::vector<int>> {
  static constexpr const char* hint = "collections.abc.Sequence[int]";
  static bool read(const py::handle& h, std::vector<int>& out) {
    if (!py::isinstance<py::sequence>(h) || py::isinstance<py::str>(h) || py::len(h) == 0) return false;
    out.clear();
    for (const py::handle& each : h)
      if (!Field<int>::read(each, out.emplace_back())) return false;
    return true;
  }
  static py::object write(const std::vector<int>& v) { return py::cast(v); }
};

// Calls visit(name, member, doc, required, optional) for each field.
template <class Visit>
struct Fields {
  Visit visit;
  template <class M>
  void operator()(const char* name, M member, const char* doc) {
    visit(name, member, doc, false, false);
  }
  template <class M>
  void required(const char* name, M member, const char* doc) {
    visit(name, member, doc, true, false);
  }
  template <class M>
  void optional(const char* name, M member, const char* doc) {
    visit(name, member, doc, false, true);
  }
};
template <class T, class Visit>
void each_field(Visit visit) {
  T::fields(Fields<Visit>{visit});
}
template <class T, class V>
V value_type(V T::*);

template <class T>
T construct(const char* kind, const py::args& args, const py::kwargs& kwargs) {
  T spec;
  const std::string at = "[" + std::string(kind) + "] ";
  std::size_t index = 0, used = 0;
  std::string names;
  each_field<T>([&](const char* name, auto member, const char*, bool required, bool optional) {
    using V = decltype(value_type(member));
    names += (names.empty() ? "" : ", ") + std::string(name);
    py::object given;
    if (index < args.size()) given = args[index];
    ++index;
    if (kwargs.contains(name)) {
      if (given) throw Error(at + name + " is given twice");
      given = kwargs[name];
      ++used;
    }
    if (!given) {
      if (required) throw Error(at + name + " is missing");
      return;
    }
    if (optional && given.is_none()) return;
    if (!Field<V>::read(given, spec.*member))
      throw Error(at + name + " must be " +
                  std::string(Field<V>::hint == Field<PerRun>::hint ? "a number, or one for each run" : Field<V>::hint) + ", got " +
                  std::string(py::repr(given)));
  });
  if (args.size() > index)
    throw Error(at + "takes at most " + std::to_string(index) + " values (" + names + "), got " + std::to_string(args.size()));
  if (kwargs.size() > used)
    for (const auto& [key, value] : kwargs) {
      const std::string name = py::str(key);
      bool known = false;
      each_field<T>([&](const char* field, auto, const char*, bool, bool) { known = known || name == field; });
      if (!known) throw Error(at + "has no option \"" + name + "\"; it has " + (names.empty() ? "none" : names));
    }
  return spec;
}

template <class T>
py::object attribute(const T& spec, auto member, bool optional) {
  using V = decltype(value_type(member));
  if constexpr (std::is_same_v<V, std::string>)
    if (optional && (spec.*member).empty()) return py::none();
  if constexpr (std::is_same_v<V, std::vector<int>>)
    if (optional && (spec.*member).empty()) return py::none();
  if constexpr (std::is_same_v<V, PerRun>)
    if (optional && !(spec.*member).given()) return py::none();
  return Field<V>::write(spec.*member);
}

template <class T>
py::dict fields_of(const T& spec) {
  py::dict out;
  each_field<T>([&](const char* name, auto member, const char*, bool, bool optional) { out[name] = attribute(spec, member, optional); });
  return out;
}

template <class T>
py::object bind(py::module_& m, const char* kind, const std::string& doc) {
  std::string text = doc, signature = "__init__(self";
  const T defaults{};
  bool any = false;
  each_field<T>([&](const char* name, auto member, const char* meaning, bool required, bool optional) {
    using V = decltype(value_type(member));
    text += (any ? "\n    " : "\n\nArgs:\n    ") + std::string(name) + ": " + meaning;
    signature += ", " + std::string(name) + ": " + Field<V>::hint + (optional ? " | None" : "");
    if (!required) signature += " = " + std::string(py::repr(attribute(defaults, member, optional)));
    any = true;
  });
  signature += ") -> None";
  py::options options;
  options.disable_function_signatures();
  py::class_<T> cls(m, kind, text.c_str());
  cls.def(py::init([kind](const py::args& args, const py::kwargs& kwargs) { return construct<T>(kind, args, kwargs); }), signature.c_str());
  each_field<T>([&](const char* name, auto member, const char* meaning, bool, bool optional) {
    using V = decltype(value_type(member));
    const std::string hint = "(self) -> " + std::string(Field<V>::hint == Field<PerRun>::hint ? "float | list[float]" : Field<V>::hint) +
                             (optional ? " | None" : "");
    cls.def_property_readonly(
        name, py::cpp_function([member, optional](const T& spec) { return attribute(spec, member, optional); }, hint.c_str()), meaning);
  });
  cls.def("fields", &fields_of<T>, "fields(self) -> dict[str, typing.Any]\n\nThe options by name, as plain values.");
  cls.def(
      "__eq__", [](const T& a, const py::object& b) { return py::isinstance<T>(b) && fields_of(a).equal(fields_of(b.cast<const T&>())); },
      "__eq__(self, other: object) -> bool");
  cls.def("__hash__", [](const T& a) { return py::hash(py::str(py::repr(fields_of(a)))); }, "__hash__(self) -> int");
  cls.def(
      "__repr__",
      [kind](const T& spec) {
        std::string out = std::string(kind) + "(";
        bool first = true;
        for (const auto& [key, value] : fields_of(spec)) {
          out += (first ? "" : ", ") + std::string(py::str(key)) + "=" + std::string(py::repr(value));
          first = false;
        }
        return out + ")";
      },
      "__repr__(self) -> str");
  return cls;
}

const char* sgd_doc = R"(Stochastic gradient descent: v <- mu v + (g + lambda w); w <- w - alpha v.

Each number may be an array [R], one value a run.)";

const char* adam_doc = R"(Adam (Kingma and Ba 2015), with step counts of each weight so that a replaced unit begins anew.

Each number may be an array [R], one value a run.)";

const char* adamw_doc =
    R"(Adam whose decay of weights is beside the gradient (Loshchilov and Hutter 2019): w <- w - alpha lambda w, then Adam.

Each number may be an array [R].)";

const char* upgd_doc = R"(Utility-based perturbed gradient descent (Elsayed and Mahmood 2024): weights of little utility change most.

u <- beta u + (1 - beta)(-g w); s = sigmoid(u / (1 - beta^t) / m), m the largest utility of all weights;
w <- (1 - alpha lambda) w - c alpha (g + sigma xi)(1 - s), xi standard normal. Where no utility is above zero s is a half.
t counts the updates of each weight, so that a replaced unit begins anew. Each number may be an array [R].)";

const char* idbd_doc = R"(Incremental delta-bar-delta (Sutton 1992): step sizes by gradient descent on the error that follows.

beta <- beta - theta g h; alpha = e^beta; w <- w - alpha g; h <- [1 - alpha c]^+ h - alpha g, where g is a weight's
gradient and c its curvature, the Gauss-Newton diagonal (of a linear unit under squared_error the input squared: the
paper's algorithm). With several outputs c comes from one random draw a sample, unbiased; in convolutions it takes
positions for independent. An owner of several weights has one beta, and the sums of g h and of c over them. Needs a
loss of klopf.losses. Each number may be an array [R].)";

const char* autostep_doc = R"(Autostep (Mahmood et al. 2012): IDBD without tuning, by normalised meta-gradients and a bound on the step.

v <- max(|g h|, v + alpha c (|g h| - v) / tau); alpha <- alpha e^(-mu g h / v); alpha <- alpha / max(sum alpha c, 1),
the sum over what `bound` names; then w and h as in IDBD. Each number may be an array [R].)";

const char* obgd_doc = R"(Overshooting-bounded gradient descent (Elsayed, Vasan and Mahmood 2024).

w <- w - min(alpha, alpha / M) g with M = alpha kappa |g|_1, the norm over what `scope` names: the paper's with a
temporal-difference error of 1 and no traces. Each number may be an array [R].)";

const char* adaptive_obgd_doc = R"(ObGD along the gradient over the root of its running mean square (Elsayed, Vasan and Mahmood 2024).

Each number may be an array [R].)";

const char* meta_optimize_doc =
    R"(AdamW whose step sizes are chosen for the sum of discounted later losses (Sharifnassab, Salehkaleybar and Sutton 2025).

m-hat and v-hat are Adam's moments. w <- (1 - alpha lambda) w - alpha m-hat / (sqrt(v-hat) + epsilon); with the same alpha
h <- gamma (1 - alpha lambda) h + alpha g / (sqrt(v-hat) + epsilon); along sum h g, with h as it was, over what `scope` names
the log of alpha moves by `meta_step_size`, the way that Lion has it. Each number may be an array [R].)";

const char* intentional_doc = R"(Updates that are to take away a share of the error (Sharifnassab et al. 2026); of streaming agents alone.

w <- w + step delta' e / r, where e is a weight's trace, r the root of its gradients' running mean square, and
step = eta / sqrt(sigma sum e^2 / r) with sigma the running mean of sum g^2 / r; delta' is the error, at most `clip` times the root
of its own mean square, and with `normalise_error` over its mean magnitude. Of policies: step_size=0.05,
normalise_error=True. Each number may be an array [R].)";

const char* swift_td_doc =
    R"(True online TD(lambda) with a step size of every weight and a bound on the rate of learning (Javed, Sharifnassab and
Sutton 2024); of values of streaming agents that are linear: one Linear layer.

Step sizes follow as in IDBD, but with all that true online traces carry on, and are at most `bound`; where the sum of step
sizes times squared inputs is above it, the step is made smaller by as much, and the step sizes of these inputs decay. Each
number may be an array [R].)";

const char* continual_backprop_doc = R"(Selective reinitialisation of the least useful units (Dohare et al., Nature 2024).

After every update each hidden layer's units age and their running utility is updated; a share of those older
than `maturity` is replaced, lowest utility first (equal ones: lowest index): incoming weights drawn anew, bias,
outgoing weights and statistics zero. Each number may be an array [R].)";

const char* layer_norm_doc = R"((x - mean) / sqrt(variance + epsilon) over the numbers of a sample (Ba, Kiros and Hinton 2016).

Then, if `affine`, weight times that plus bias: of each number, [R, U] or [R, C, H, W]. Streaming agents have neither.)";

const char* batch_norm1d_doc = R"((x - mean) / sqrt(variance + epsilon) of each unit over a batch (Ioffe and Szegedy 2015).

Then, if `affine`, weight times that plus bias, [R, U]. Inference, such as evaluation, takes running_mean and running_var [R, U],
which follow the batches that are learned (the variance over the n - 1 deviation): no other step changes them. A batch must
have two samples.)";

const char* batch_norm2d_doc =
    R"((x - mean) / sqrt(variance + epsilon) of each channel over a batch and all positions (Ioffe and Szegedy 2015).

The rest as BatchNorm1d; arrays are [R, C].)";

const char* dropout_doc = R"(Each number is zero with `probability`, and else divided by 1 - probability (Srivastava et al. 2014).

Inference, such as evaluation, leaves numbers as they are. What is dropped depends on the run's seed, the update and the
place in the batch: two forward passes before one update drop the same.)";

const char* log_std_doc = R"(Last layer of a Gaussian policy: log sigma of every action, the same for all inputs.

A parameter [R, outputs] of the network, which hands on its inputs as the means.)";

const char* clipped_policy_doc = R"(The clipped surrogate of proximal policy optimisation (Schulman et al. 2017), less an entropy bonus.

A loss whose targets are, for each sample, an action (its numbers, or its index), the logarithm of its probability
when it was taken, and its advantage. A learner's `accuracy` then is the share of samples whose ratio of
probabilities was outside the clipping range. Each number may be an array [R].)";

const char* recruitment_doc = R"(Replacement in the fringe alone: units that matter are a backbone, which is left in peace.

Of each hidden layer, from the last to the first: a unit's contribution is the running variance of its activity times the
sum of its squared outgoing weights, to successors of the backbone only; s is its share of the layer's, u <- d u + (1 - d) s
with d `utility_decay`, and its reputation r = u where that is more, else r <- q r + (1 - q) u with q `reputation_decay`:
earned fast, lost slowly. It is of the backbone where r times the layer's number of living units is at least `threshold`. Of the
others, a share is replaced as continual backprop does, lowest reputation first. `utility` of units is r.

With a `growth_period` layers with room (`Linear(64, living=8)`) grow: every so many updates a unit is added, where fewer than
`candidates` units are of the fringe, the running loss (of `utility_decay`; of streaming agents the squared temporal-difference
error) is above `tolerated_error` and has not fallen by a share of `progress` since the last look, and a unit of the layer
before lives, if there is one. Each number may be an array [R].)";

const char* rewire_doc =
    R"(Units choose their wires: of layers made with them (`Linear(64, wires=8)`), whose units each listen to so many inputs.

At each step a share of a unit's wires older than `maturity` is dropped, those of the smallest weights first, and as many
inputs that it did not listen to are tried, chosen at random, with weights that begin at zero. Fractions are carried over.
Inputs should be of a like size, as a weight's size stands for its use. A unit that is replaced has all its wires drawn anew.
Each number may be an array [R].)";

const char* redo_doc = R"(Replacement of dormant units (ReDo; Sokar et al. 2023).

Every `period` updates each hidden layer's units whose mean |activity| in the last batch, over the layer's mean, is at
most `threshold` begin anew: incoming weights drawn, bias, outgoing weights and statistics zero. Each number may be an
array [R].)";

const char* snr_doc = R"(Self-normalised resets (SNR; Farias and Jozefiak 2024): replacement of units that are silent for unusually long.

A unit is silent in a batch in which it is zero on all samples at all positions, and then for as many samples as the batch
has. It is replaced once it is silent for longer than a limit: first `threshold`, then, looked at every `period` updates, the
`percentile` of its silences since the last look (the one that ended with its replacement counts too), or where that is not
below the limit, twice the limit; never less than a batch or more than `longest`. Silences of 16 samples and more are
counted in eight bins to each doubling. Needs ReLU units. Each number may be an array [R].)";

const char* goal_doc =
    R"(A goal of units' own, beside the loss of the network: after each update it changes their incoming weights and biases.

Several goals, and several weights of one (`step_size`), may follow each other in the list of rules, after the rule that replaces
units, if there is one. y is a unit's activity, s its running standard deviation, z = (y - mean) / s.

"active": active on a share of the samples at least. Where a running rate is below it, the bias rises by step_size (share - rate) / share.
"unit_variance": incoming weights and bias are multiplied by s^-step_size.
"decorrelated": unlike one's peers. c_j is the running mean of z z_j; against the gradient of the mean of c_j^2 over peers j.
"listened": like what its successors lack. d_k is minus the gradient of the sample's loss by successor k's sum of inputs and
c_k the running mean of d_k z: outgoing weights grow as |c_k|, along whose sum, over successors of the backbone, the unit climbs.
The last two keep the norm of a unit's incoming weights and bias, and are of units between two Linear layers.

Each number may be an array [R].)";

const char* shrink_and_perturb_doc = R"(Perturbation of Shrink and Perturb (Ash and Adams 2020), every step.

Shrinking is the optimizer's weight_decay. The number may be an array [R].)";

}  // namespace

// clang-format off: one to a line
void bind_specs(py::module_& m) {
  m.attr("layers") = py::make_tuple(
      bind<Linear>(m, "Linear", "Fully connected layer: y = W x + b, weight [R, outputs, inputs], bias [R, outputs]."),
      bind<Conv2d>(m, "Conv2d", "Convolution of images [C, H, W]: weight [R, channels, C, kernel, kernel], bias [R, channels]."),
      bind<MaxPool2d>(m, "MaxPool2d", "Largest value of each window. Behind Conv2d and ReLU all three run as one operation."),
      bind<Flatten>(m, "Flatten", "From [C, H, W] to a vector, in that order."),
      bind<ReLU>(m, "ReLU", "max(x, 0); its slope at 0 is 0."),
      bind<LeakyReLU>(m, "LeakyReLU", "x where x >= 0, slope x elsewhere."),
      bind<Tanh>(m, "Tanh", "Hyperbolic tangent."),
      bind<Sigmoid>(m, "Sigmoid", "1 / (1 + exp(-x))."),
      bind<LayerNorm>(m, "LayerNorm", layer_norm_doc),
      bind<BatchNorm1d>(m, "BatchNorm1d", batch_norm1d_doc),
      bind<BatchNorm2d>(m, "BatchNorm2d", batch_norm2d_doc),
      bind<Dropout>(m, "Dropout", dropout_doc),
      bind<LogStd>(m, "LogStd", log_std_doc));
  bind<ClippedPolicy>(m, "ClippedPolicy", clipped_policy_doc);
  bind<HostRule>(m, "HostRule", "The place of a klopf.UnitRule among the rules.");
  bind<HostOptimizer>(m, "HostOptimizer", "The place of a klopf.StepSizeRule.");
  m.attr("optimizers") = py::make_tuple(
      bind<SGD>(m, "SGD", sgd_doc),
      bind<Adam>(m, "Adam", adam_doc),
      bind<AdamW>(m, "AdamW", adamw_doc),
      bind<UPGD>(m, "UPGD", upgd_doc),
      bind<IDBD>(m, "IDBD", idbd_doc),
      bind<Autostep>(m, "Autostep", autostep_doc),
      bind<ObGD>(m, "ObGD", obgd_doc),
      bind<AdaptiveObGD>(m, "AdaptiveObGD", adaptive_obgd_doc),
      bind<MetaOptimize>(m, "MetaOptimize", meta_optimize_doc),
      bind<Intentional>(m, "Intentional", intentional_doc),
      bind<SwiftTD>(m, "SwiftTD", swift_td_doc));
  m.attr("rules") = py::make_tuple(
      bind<ContinualBackprop>(m, "ContinualBackprop", continual_backprop_doc),
      bind<Recruitment>(m, "Recruitment", recruitment_doc),
      bind<Rewire>(m, "Rewire", rewire_doc),
      bind<ReDo>(m, "ReDo", redo_doc),
      bind<SNR>(m, "SNR", snr_doc),
      bind<Goal>(m, "Goal", goal_doc),
      bind<ShrinkAndPerturb>(m, "ShrinkAndPerturb", shrink_and_perturb_doc));
}
// clang-format on

}  // namespace klopf::bindings
