#include "klopf/stream.hpp"

#include <pybind11/stl.h>

#include "arrays.hpp"
#include "module.hpp"

namespace klopf::bindings {
namespace {

std::shared_ptr<StreamAgent> make(std::shared_ptr<Network> policy, std::shared_ptr<Network> value, const std::string& method,
                                  const std::string& distribution, const Optimizer& optimizer, const Optimizer& value_optimizer,
                                  const std::vector<Rule>& rules, const ArrayLike& discount, const ArrayLike& trace_decay,
                                  const ArrayLike& entropy, double epsilon, double last_epsilon, int64_t exploration_steps,
                                  const std::string& trace_cut, const std::string& first_action, const std::string& truncation,
                                  const std::string& reward_trace, int64_t time_limit, bool normalise_observations, bool scale_rewards) {
  const auto number = [](const char* name, const ArrayLike& value) { return read_numbers("stream", name, value); };
  return std::make_shared<StreamAgent>(
      std::move(policy), std::move(value),
      StreamOptions{method, distribution, optimizer, value_optimizer, rules, number("discount", discount),
                    number("trace_decay", trace_decay), number("entropy", entropy), epsilon, last_epsilon, exploration_steps, trace_cut,
                    first_action, truncation, reward_trace, time_limit, normalise_observations, scale_rewards});
}

ArrayLike given(const OptionalArrayLike& value) { return py::reinterpret_borrow<ArrayLike>(value); }

py::array actions_of(const StreamAgent& agent, const std::vector<float>& actions) {
  const py::ssize_t runs = agent.runs();
  if (!agent.acts()) return to_numpy(actions, {runs});
  if (agent.chooses()) return to_numpy(std::vector<int64_t>(actions.begin(), actions.end()), {runs});
  return to_numpy(actions, {runs, agent.action_size()});
}

py::array begin(StreamAgent& agent, const ArrayLike& observation) {
  const auto x = read_array<double>("begin", "observation", observation, {agent.runs(), agent.observations()});
  std::vector<float> actions;
  {
    const py::gil_scoped_release release;
    actions = agent.begin(x.data());
  }
  return actions_of(agent, actions);
}

py::array step(StreamAgent& agent, const ArrayLike& observation, const ArrayLike& reward, const ArrayLike& terminated,
               const ArrayLike& truncated, const OptionalArrayLike& final_observation) {
  const py::ssize_t runs = agent.runs(), inputs = agent.observations();
  const auto x = read_array<double>("step", "observation", observation, {runs, inputs});
  const auto r = read_array<double>("step", "reward", reward, {runs});
  const auto ended = read_array<uint8_t>("step", "terminated", terminated, {runs}),
             cut = read_array<uint8_t>("step", "truncated", truncated, {runs});
  Dense<double> last;
  if (!final_observation.is_none()) last = read_array<double>("step", "final_observation", given(final_observation), {runs, inputs});
  std::vector<float> actions;
  {
    const py::gil_scoped_release release;
    actions = agent.step(x.data(), r.data(), ended.data(), cut.data(), final_observation.is_none() ? nullptr : last.data());
  }
  return actions_of(agent, actions);
}

py::array_t<double> learn(StreamAgent& agent, const ArrayLike& observation, const OptionalArrayLike& action, const ArrayLike& reward,
                          const ArrayLike& next_observation, const ArrayLike& terminated, const OptionalArrayLike& truncated,
                          const OptionalArrayLike& next_action, const OptionalArrayLike& greedy) {
  const py::ssize_t runs = agent.runs(), inputs = agent.inputs();
  const std::vector<py::ssize_t> actions =
      agent.chooses() ? std::vector<py::ssize_t>{runs} : std::vector<py::ssize_t>{runs, agent.action_size()};
  const auto x = read_array<double>("learn", "observation", observation, {runs, inputs});
  const auto r = read_array<double>("learn", "reward", reward, {runs});
  const auto next = read_array<double>("learn", "next_observation", next_observation, {runs, inputs});
  const auto ended = read_array<uint8_t>("learn", "terminated", terminated, {runs});
  Dense<double> a, b;
  Dense<uint8_t> cut, best;
  if (!action.is_none()) a = read_array<double>("learn", "action", given(action), actions);
  if (!truncated.is_none()) cut = read_array<uint8_t>("learn", "truncated", given(truncated), {runs});
  if (!next_action.is_none()) b = read_array<double>("learn", "next_action", given(next_action), {runs});
  if (!greedy.is_none()) best = read_array<uint8_t>("learn", "greedy", given(greedy), {runs});
  std::vector<double> deltas;
  {
    const py::gil_scoped_release release;
    const auto data = [](const OptionalArrayLike& asked, const auto& read) { return asked.is_none() ? nullptr : read.data(); };
    deltas = agent.learn(x.data(), data(action, a), r.data(), next.data(), ended.data(), data(truncated, cut), data(next_action, b),
                         data(greedy, best));
  }
  return to_numpy(deltas, {runs});
}

py::array_t<bool> alive(const StreamAgent& agent) {
  const std::vector<uint8_t> found = agent.alive();
  py::array_t<bool> out(static_cast<py::ssize_t>(found.size()));
  std::copy(found.begin(), found.end(), out.mutable_data());
  return out;
}

const char* agent_doc = R"(R independent agents that learn from every step once, as it comes (Elsayed, Vasan and Mahmood 2024).

Weights move along the temporal-difference error times eligibility traces; there is no buffer. Under IDBD that is TIDBD: the
newest gradient in the meta-gradient, and newest gradient times trace as the curvature. Autostep does likewise, with its own
bound.

Args:
    policy: network of an actor-critic: two outputs for each number of an action, the mean and what softplus makes the
        deviation of (distribution="softplus"), or logits ("categorical"); None for the other methods
    value: network of the same seeds, made with another `stream`: one output, or one for each action of q and sarsa
    method: "ac", "q", "sarsa", or "td", which predicts
    distribution: of an actor-critic's actions
    optimizer: of the policy
    value_optimizer: of the value
    rules: of both networks
    discount: gamma; one number, or one for each run
    trace_decay: lambda; one number, or one for each run
    entropy: weight of the policy's entropy, times the error's sign
    epsilon: share of random actions of q and sarsa at first
    last_epsilon: and after `exploration_steps`, between which it falls evenly
    exploration_steps: as said
    trace_cut: of q: "reference" clears traces after the update of an action that was not the best, "watkins" before it
    first_action: of sarsa, in a new episode: "drawn" for its first observation, or "kept", drawn for the last one's, as in
        the authors' program
    truncation: "terminal", or "bootstrap", where an episode that is cut short goes on in the value of its last observation
    reward_trace: "reference", the reward that ends an episode counts in the discounted sum of the next one, as in the
        authors' program; or "episode", in its own
    time_limit: steps of the longest episode: t / time_limit - 1/2, t steps into an episode, follows the observation, after any
        normalisation, so that the networks have one input more; 0: not
    normalise_observations: by running means and deviations, each run its own
    scale_rewards: by the deviation of their discounted sum

Raises:
    klopf.Error: networks that do not fit, unknown names, numbers out of range)";

const char* begin_doc = R"(The first observations of episodes.

Args:
    observation: [R, numbers of one]

Returns: actions [R, A] or indices [R]; of method="td" predictions [R].)";

const char* step_doc = R"(Learns from what followed the last actions, and chooses the next ones.

Args:
    observation: [R, numbers of one]; where an episode ended, the first one of the next
    reward: [R]
    terminated: bool [R]
    truncated: bool [R]
    final_observation: [R, numbers of one], what the step led to before any reset; needed where truncation bootstraps, and where
        sarsa keeps the action drawn for it

Returns: actions [R, A] or indices [R]; of method="td" predictions [R].

Raises:
    klopf.Error: shapes, numbers that are not finite, no begin() before)";

const char* step_sizes_doc = R"(Every weight's step size, as Learner.step_sizes() has them, with "policy." or "value." before its name.

Raises:
    klopf.Error: one step size for all)";

const char* learn_doc = R"(One update alone, from a transition of the caller's own: nothing is normalised and no action drawn.

Args:
    observation: [R, inputs]
    action: [R, A], or indices [R]; None for td
    reward: [R]
    next_observation: [R, inputs]
    terminated: bool [R]: nothing follows
    truncated: bool [R]: the next sample begins an episode, and the value of next_observation counts; None: none
    next_action: indices [R], of sarsa
    greedy: bool [R], of q: whether the actions were the best ones; None: all were

Returns: temporal-difference errors [R].)";

}  // namespace

void bind_stream(py::module_& m) {
  const auto none = py::none();
  py::class_<StreamAgent, std::shared_ptr<StreamAgent>>(m, "StreamAgent", agent_doc)
      .def(py::init(&make), py::arg("policy"), py::arg("value").none(false), py::kw_only(), py::arg("method"), py::arg("distribution"),
           py::arg("optimizer"), py::arg("value_optimizer"), py::arg("rules"), py::arg("discount"), py::arg("trace_decay"),
           py::arg("entropy"), py::arg("epsilon"), py::arg("last_epsilon"), py::arg("exploration_steps"), py::arg("trace_cut"),
           py::arg("first_action"), py::arg("truncation"), py::arg("reward_trace"), py::arg("time_limit"),
           py::arg("normalise_observations"), py::arg("scale_rewards"))
      .def("begin", &begin, py::arg("observation"), begin_doc)
      .def("step", &step, py::arg("observation"), py::arg("reward"), py::arg("terminated"), py::arg("truncated"),
           py::arg("final_observation") = none, step_doc)
      .def("learn", &learn, py::arg("observation"), py::arg("action"), py::arg("reward"), py::arg("next_observation"),
           py::arg("terminated"), py::arg("truncated") = none, py::arg("next_action") = none, py::arg("greedy") = none, learn_doc)
      .def(
          "step_sizes", [](const StreamAgent& agent) { return to_dict(agent.step_sizes()); }, step_sizes_doc)
      .def_property_readonly("alive", &alive, "bool [R]: False for runs whose numbers were no longer finite; their actions are zero.")
      .def_property_readonly(
          "observation",
          [](const StreamAgent& agent) { return to_numpy(agent.seen(), {static_cast<py::ssize_t>(agent.runs()), agent.inputs()}); },
          "What the networks see, where the next action is taken [R, inputs].")
      .def_property_readonly("runs", &StreamAgent::runs, "How many agents there are.")
      .def(
          "state", [](const StreamAgent& agent) { return to_dict(agent.state()); }, "Everything that learning depends on, by name.")
      .def(
          "load_state", [](StreamAgent& agent, const ArrayDict& arrays) { agent.load_state(from_dict("load_state", arrays)); },
          py::arg("arrays"), "What state() gave, back in place.");
}

}  // namespace klopf::bindings
