#include "klopf/ppo.hpp"

#include <pybind11/stl.h>

#include <cmath>

#include "arrays.hpp"
#include "klopf/advantages.hpp"
#include "module.hpp"

namespace klopf::bindings {
namespace {

PerRun each_run(const char* name, const ArrayLike& value) { return read_numbers("ppo", name, value); }

std::shared_ptr<Ppo> make(std::shared_ptr<Network> policy, std::shared_ptr<Network> value, const ClippedPolicy& loss,
                          const Optimizer& optimizer, const std::vector<Rule>& rules, int64_t steps, int64_t epochs, int64_t batch_size,
                          const ArrayLike& discount, const ArrayLike& trace_decay, const std::string& truncation,
                          const OptionalArrayLike& max_gradient_norm, bool normalise_observations, bool normalise_rewards) {
  return std::make_shared<Ppo>(
      std::move(policy), std::move(value),
      PpoOptions{loss, optimizer, rules, steps, epochs, batch_size, each_run("discount", discount), each_run("trace_decay", trace_decay),
                 truncation, max_norm("ppo", max_gradient_norm), normalise_observations, normalise_rewards});
}

bool is_gaussian(const Ppo& agent) { return agent.options().loss.distribution == "gaussian"; }

template <class Act>
py::array actions_of(const char* where, Ppo& agent, const ArrayLike& observation, Act act) {
  const py::ssize_t runs = agent.runs(), inputs = agent.policy().input_size();
  const auto values = read_array<double>(where, "observation", observation, {runs, inputs});
  std::vector<float> actions;
  {
    const py::gil_scoped_release release;
    actions = act(values.data());
  }
  if (is_gaussian(agent)) return to_numpy(actions, {runs, agent.action_size()});
  return to_numpy(std::vector<int64_t>(actions.begin(), actions.end()), {runs});
}

py::array act(Ppo& agent, const ArrayLike& observation) {
  return actions_of("act", agent, observation, [&](const double* values) { return agent.act(values); });
}
py::array choose(Ppo& agent, const ArrayLike& observation) {
  return actions_of("choose", agent, observation, [&](const double* values) { return agent.choose(values); });
}

void observe(Ppo& agent, const ArrayLike& reward, const ArrayLike& terminated, const ArrayLike& truncated,
             const ArrayLike& final_observation) {
  const py::ssize_t runs = agent.runs(), inputs = agent.policy().input_size();
  const auto rewards = read_array<double>("observe", "reward", reward, {runs});
  const auto ended = read_array<uint8_t>("observe", "terminated", terminated, {runs});
  const auto cut = read_array<uint8_t>("observe", "truncated", truncated, {runs});
  const auto final = read_array<double>("observe", "final_observation", final_observation, {runs, inputs});
  agent.observe(rewards.data(), ended.data(), cut.data(), final.data());
}

struct UpdateOut {
  PpoUpdate update;
  py::ssize_t runs;
  py::array_t<double> array(const std::vector<double>& values) const {
    return to_numpy(values, {runs, static_cast<py::ssize_t>(values.size()) / runs});
  }
};

UpdateOut learn(Ppo& agent) {
  const py::gil_scoped_release release;
  return {agent.learn([] {
            const py::gil_scoped_acquire acquire;
            if (PyErr_CheckSignals() != 0) throw py::error_already_set();
          }),
          agent.runs()};
}

py::array_t<bool> alive(const Ppo& agent) {
  const std::vector<uint8_t> found = agent.alive();
  py::array_t<bool> out(static_cast<py::ssize_t>(found.size()));
  std::copy(found.begin(), found.end(), out.mutable_data());
  return out;
}

py::array_t<double> estimate(const ArrayLike& rewards, const ArrayLike& values, const ArrayLike& final_values, const ArrayLike& terminated,
                             const ArrayLike& truncated, double discount, double trace_decay) {
  const py::array given = py::array::ensure(rewards);
  if (!given) PyErr_Clear();
  if (!given || given.ndim() != 2) throw Error("[advantages] rewards must have shape [R, T]");
  for (const auto& [name, number] : {std::pair{"discount", discount}, {"trace_decay", trace_decay}})
    if (!(number >= 0 && number <= 1))
      throw Error("[advantages] " + std::string(name) + " must be in [0, 1], got " + std::to_string(number));
  const std::vector<py::ssize_t> shape{given.shape(0), given.shape(1)};
  const char* at = "advantages";
  const auto r = read_array<double>(at, "rewards", rewards, shape);
  const auto v = read_array<float>(at, "values", values, shape), f = read_array<float>(at, "final_values", final_values, shape);
  const auto e = read_array<uint8_t>(at, "terminated", terminated, shape), c = read_array<uint8_t>(at, "truncated", truncated, shape);
  py::array_t<double> out(shape);
  for (py::ssize_t run = 0, first = 0; run < shape[0]; ++run, first += shape[1])
    advantages(r.data() + first, v.data() + first, f.data() + first, e.data() + first, c.data() + first, shape[1], discount, trace_decay,
               out.mutable_data() + first);
  return out;
}

const char* ppo_doc = R"(R independent agents that learn by proximal policy optimisation (Schulman et al. 2017).

Each learns from its own steps: act, observe, and when the buffer is full, learn. Both networks have a learner with
the same optimizer and rules.

Args:
    policy: network whose outputs are the means of the actions, and that ends with LogStd(); or logits
    value: network of the same seeds with one output, made with another `stream`
    loss: ClippedPolicy
    optimizer: of both networks
    rules: of both networks
    steps: of the buffer
    epochs: passes over a full buffer
    batch_size: steps of a minibatch
    discount: gamma; one number, or one for each run
    trace_decay: lambda of the advantage estimates; one number, or one for each run
    max_gradient_norm: of each network's gradient by itself; None: no limit
    normalise_observations: by running means and deviations, each run its own
    normalise_rewards: by the deviation of their discounted sum
    truncation: "bootstrap", where an episode that is cut short goes on in the value of its last observation, or "terminal"

Raises:
    klopf.Error: networks that do not fit, numbers out of range)";

const char* act_doc = R"(Draws actions, and remembers observation and action.

Args:
    observation: [R, inputs]

Returns:
    float32 [R, outputs], or int64 [R] of a categorical policy; 0 in runs that no longer learn)";

const char* choose_doc = R"(What the policy does without exploring: its means, or its likeliest actions. Nothing is remembered.

Args:
    observation: [R, inputs]

Returns:
    float32 [R, outputs], or int64 [R] of a categorical policy)";

const char* observe_doc = R"(What followed the last actions.

Args:
    reward: [R]
    terminated: bool [R], the episode ended
    truncated: bool [R], it was cut short
    final_observation: [R, inputs], what the step led to, before any reset)";

const char* learn_doc = R"(All epochs on a full buffer, which is empty then.

Ctrl-C is answered between epochs: the buffer is then still full, and some of the epochs were done.)";

const char* advantages_doc = R"(Generalised advantage estimates (Schulman et al. 2016): float64 [R, T].

Args:
    rewards: [R, T]
    values: [R, T] of the observations
    final_values: [R, T] of what each step led to, before any reset
    terminated: bool [R, T]
    truncated: bool [R, T]
    discount: gamma
    trace_decay: lambda)";

}  // namespace

void bind_ppo(py::module_& m) {
  py::class_<UpdateOut>(m, "PPOUpdate", "What one call of PPO.learn did: means over each epoch.")
      .def_property_readonly(
          "policy_loss", [](const UpdateOut& out) { return out.array(out.update.policy_loss); }, "[R, epochs]")
      .def_property_readonly(
          "value_loss", [](const UpdateOut& out) { return out.array(out.update.value_loss); }, "[R, epochs]")
      .def_property_readonly(
          "clipped", [](const UpdateOut& out) { return out.array(out.update.clipped); },
          "[R, epochs], share of samples whose ratio of probabilities was outside the clipping range");
  py::class_<Ppo, std::shared_ptr<Ppo>>(m, "PPO", ppo_doc)
      .def(py::init(&make), py::arg("policy").none(false), py::arg("value").none(false), py::kw_only(), py::arg("loss"),
           py::arg("optimizer"), py::arg("rules") = std::vector<Rule>{}, py::arg("steps") = 2048, py::arg("epochs") = 10,
           py::arg("batch_size") = 128, py::arg("discount") = 0.99, py::arg("trace_decay") = 0.95, py::arg("truncation") = "bootstrap",
           py::arg("max_gradient_norm") = py::none(), py::arg("normalise_observations") = false, py::arg("normalise_rewards") = false)
      .def("act", &act, py::arg("observation"), act_doc)
      .def("choose", &choose, py::arg("observation"), choose_doc)
      .def("observe", &observe, py::arg("reward"), py::arg("terminated"), py::arg("truncated"), py::arg("final_observation"), observe_doc)
      .def("cut", &Ppo::cut, "Episodes end here as if they had been truncated: for environments that begin anew.")
      .def("learn", &learn, learn_doc)
      .def(
          "recent",
          [](const Ppo& agent, int64_t count) {
            const std::vector<float> found = agent.recent(count);
            const py::ssize_t runs = agent.runs(), inputs = agent.policy().input_size();
            return to_numpy(found, {runs, static_cast<py::ssize_t>(found.size()) / (runs * inputs), inputs});
          },
          py::arg("count"), "Up to so many of the latest observations [R, n, inputs], oldest first: at most a buffer of them.")
      .def_property_readonly("full", &Ppo::full, "Whether learn() comes next.")
      .def_property_readonly("filled", &Ppo::filled, "Steps that the buffer holds.")
      .def_property_readonly("runs", &Ppo::runs, "R")
      .def_property_readonly("alive", &alive, "bool [R]: False for runs frozen because a loss or weights were no longer finite.")
      .def(
          "state", [](const Ppo& agent) { return to_dict(agent.state()); },
          "Everything that learning depends on, by name, the buffer included.")
      .def(
          "load_state", [](Ppo& agent, const ArrayDict& arrays) { agent.load_state(from_dict("load_state", arrays)); }, py::arg("arrays"),
          "What state() gave, back in place.");
  m.def("advantages", &estimate, py::arg("rewards"), py::arg("values"), py::arg("final_values"), py::arg("terminated"),
        py::arg("truncated"), py::arg("discount"), py::arg("trace_decay"), advantages_doc);
}

}  // namespace klopf::bindings
