// Goals of units' own put their operations into a recording.
#include <algorithm>
#include <cmath>

#include "klopf/error.hpp"
#include "learn/record.hpp"
#include "rules/utilities.hpp"

namespace klopf {
namespace {

const std::vector<std::string> goals{"active", "unit_variance", "decorrelated", "listened"};

// Nodes between a group's layer and the next one.
std::vector<Node> between(const Network& network, const Units& g) {
  std::vector<Node> found;
  for (const Node& node : network.nodes())
    if (node.layer > g.place && node.layer < g.next_place) found.push_back(node);
  return found;
}

// The statistics of the k-th group as a goal has them.
Units own_statistics(Recording& r, const std::string& owner, std::size_t k, Units g) {
  const auto add = [&](const char* name) { return of_units<float>(r, owner, k, name, {g.units}); };
  g.age = of_units<int32_t>(r, owner, k, "age", {g.units});
  g.mean_trace = add("mean_activity_trace");
  g.mean_activity = add("mean_activity");
  g.variance = add("variance");
  for (Ref<float>* unused : {&g.last_activity, &g.utility_trace, &g.utility})
    *unused = r.work.take<float>(static_cast<std::size_t>(g.units));
  return g;
}

void keep_variance(Recording& r, const GoalUnits& goal) {
  const auto measure = std::find(std::begin(UtilityMeasures::names), std::end(UtilityMeasures::names), std::string(Weight::name));
  watch(r, goal.group, static_cast<int>(measure - std::begin(UtilityMeasures::names)), goal.decay);
}

void record_active(Recording& r, const std::string& owner, std::size_t k, GoalUnits goal, Ref<double> share) {
  const auto units = static_cast<std::size_t>(goal.group.units);
  GoalActive op{goal, r.work.take<float>(units), of_units<float>(r, owner, k, "rate_trace", {goal.group.units}), share};
  op.units.group.age = of_units<int32_t>(r, owner, k, "age", {goal.group.units});
  op.units.group.mean_trace = op.units.group.mean_activity = op.units.group.variance = {};
  r.observe.push_back(UnitFiring{goal.group, op.counts});
  r.update.push_back(op);
}

// Why units cannot have a goal; empty if they can.
std::string hindrance(const Network& network, const Units& g, bool correlation) {
  const std::vector<Node> nodes = between(network, g);
  if (std::any_of(nodes.begin(), nodes.end(), [](const Node& node) { return node.normalises(); }))
    return "are normalised, which undoes what a goal does";
  if (!correlation) return "";
  const bool plain = nodes.empty() || (nodes.size() == 1 && nodes[0].kind == Node::Kind::activation);
  if (!plain || network.node_of(g.place).kind != Node::Kind::linear || network.node_of(g.next_place).kind != Node::Kind::linear)
    return "are not of Linear with at most an activation before the next Linear";
  return g.units < 2 ? "have no peers" : "";
}

void record_correlation(Recording& r, const std::string& owner, std::size_t k, const GoalUnits& goal, bool listened, Ref<double> decay) {
  const Units& g = goal.group;
  const std::vector<Node> nodes = between(r.network, g);
  GoalCorrelation op{};
  op.units = goal;
  op.listened = listened;
  op.partners = listened ? g.outputs : g.units;
  op.linear = nodes.empty();
  if (!nodes.empty()) op.activation = nodes[0].activation, op.slope = nodes[0].slope;
  for (const Operation& operation : r.tape.backward)
    if (const auto* layer = std::get_if<LinearBackward>(&operation)) {
      if (layer->weight == g.incoming) op.input = layer->input;
      if (layer->weight == g.outgoing) op.grad_output = layer->grad_output;
    }
  if (k + 1 < r.backbone.size() && listened) op.successors = r.backbone[k + 1];
  op.correlation = of_units<float>(r, owner, k, listened ? "heard" : "alike", {g.units, op.partners});
  op.correlation_decay = decay;
  op.scratch = r.work.take<float>(r.network.backend().scratch(op, r.tape.capacity));
  r.update.push_back(op);
}

// Whether a unit learns from its reward alone; what is of that, or of another goal, is not silently ignored.
bool by_perturbation(const Goal& rule, const std::string& owner) {
  if (!rule.by.empty() && rule.goal != goals[3]) throw Error("[" + owner + "] by is of the goal \"listened\", got \"" + rule.goal + "\"");
  const bool perturbation = !rule.by.empty() && choice(owner, "by", rule.by, {"gradient", "perturbation"}) == 1;
  const std::pair<const char*, bool> options[] = {{"noise", rule.noise.given()},
                                                  {"hold", rule.hold.given()},
                                                  {"trace_decay", rule.trace_decay.given()},
                                                  {"baseline_decay", rule.baseline_decay.given()}};
  for (const auto& [name, given] : options)
    if (given && !perturbation)
      throw Error("[" + owner + "] " + name + " is of by=\"perturbation\", got \"" + (rule.by.empty() ? "gradient" : rule.by) + "\"");
  return perturbation;
}

GoalPerturbation perturbation_rates(const Goal& rule, Recording& r, const std::string& owner) {
  GoalPerturbation op{};
  op.noise = r.number(owner, "noise", rule.noise.given() ? rule.noise : PerRun(0.3), 0, HUGE_VAL);
  for (const double v : rule.noise.values)
    if (v == 0) throw Error("[" + owner + "] noise must be above 0");
  op.hold = whole_number(r, owner, "hold", rule.hold.given() ? rule.hold : PerRun(1.0), 1, 9e15);
  op.trace_decay = r.number(owner, "trace_decay", rule.trace_decay.given() ? rule.trace_decay : PerRun(0.0), 0, 1, false);
  op.baseline_decay = r.number(owner, "baseline_decay", rule.baseline_decay.given() ? rule.baseline_decay : PerRun(0.99), 0, 1, false);
  return op;
}

}  // namespace

void record_one(const Goal& rule, Recording& r, const std::string& owner) {
  const int which = choice(owner, "goal", rule.goal, goals);
  const bool perturbation = by_perturbation(rule, owner);
  const bool active = which == 0, listened = which == 3, correlation = which >= 2 && !perturbation;
  if (rule.share.given() && !active) throw Error("[" + owner + "] share is of the goal \"active\", got \"" + rule.goal + "\"");
  if (rule.correlation_decay.given() && !correlation)
    throw Error("[" + owner + "] correlation_decay is of the goals \"decorrelated\" and \"listened\" by gradient, got \"" + rule.goal +
                "\"" + (perturbation ? " by perturbation" : ""));
  if (listened && correlation && r.traces)
    throw Error("[" + owner + "] the goal \"listened\" by gradient is of a Learner's losses, not of a StreamAgent");
  const bool fringe = choice(owner, "units", rule.units, {"all", "fringe"});
  if (fringe && r.backbone.empty()) throw Error("[" + owner + "] units=\"fringe\" follows klopf.Recruitment in the list of rules");
  GoalUnits goal{};
  goal.step_size = r.number(owner, "step_size", rule.step_size, 0, HUGE_VAL);
  goal.decay = r.number(owner, "decay", rule.decay, 0, 1, false);
  Ref<double> share{}, correlation_decay{};
  if (active) {
    share = r.number(owner, "share", rule.share.given() ? rule.share : PerRun(0.1), 0, 1);
    for (const double v : rule.share.values)
      if (v == 0) throw Error("[" + owner + "] share must be above 0");
  }
  if (correlation)
    correlation_decay =
        r.number(owner, "correlation_decay", rule.correlation_decay.given() ? rule.correlation_decay : PerRun(0.995), 0, 1, false);

  GoalPerturbation rates{};
  if (perturbation) rates = perturbation_rates(rule, r, owner);

  const std::vector<Units> groups = r.units();
  if (groups.empty()) throw Error("[" + owner + "] the network has no hidden units");
  for (const int layer : rule.layers)
    if (layer < 0 || layer >= static_cast<int>(groups.size()))
      throw Error("[" + owner + "] layers must be places in Network.units, from 0 to " + std::to_string(groups.size() - 1) + ", got " +
                  std::to_string(layer));
  std::size_t hindered = 0;
  for (std::size_t k = 0; k < groups.size(); ++k) {
    const bool asked = std::find(rule.layers.begin(), rule.layers.end(), static_cast<int>(k)) != rule.layers.end();
    if (!rule.layers.empty() && !asked) continue;
    const std::string why = hindrance(r.network, groups[k], correlation);
    if (!why.empty() && (asked || ++hindered == groups.size()))
      throw Error("[" + owner + "] units of layer " + std::to_string(groups[k].place) + " " + why);
    if (!why.empty()) continue;
    goal.group = groups[k];
    if (fringe) goal.kept = r.backbone[k];
    if (!r.replaced.empty()) goal.replaced = r.replaced[k];
    if (active) {
      record_active(r, owner, k, goal, share);
      continue;
    }
    goal.group = own_statistics(r, owner, k, groups[k]);
    keep_variance(r, goal);
    if (perturbation) rates.units = goal, record_perturbation(r, owner, k, rates);
    else if (correlation) record_correlation(r, owner, k, goal, listened, correlation_decay);
    else r.update.push_back(GoalVariance{goal});
  }
}

}  // namespace klopf
