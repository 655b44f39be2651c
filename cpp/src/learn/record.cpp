// Optimizers and rules put their operations into a recording.
#include "learn/record.hpp"

#include <algorithm>
#include <cmath>
#include <sstream>

#include "klopf/error.hpp"
#include "rules/silences.hpp"
#include "rules/utilities.hpp"

namespace klopf {

// In the order of LossKind.
std::vector<std::string> loss_names() { return {"cross_entropy", "mse", "squared_error"}; }
std::vector<std::string> utility_names() { return {std::begin(UtilityMeasures::names), std::end(UtilityMeasures::names)}; }

std::string number_text(double value) {
  std::ostringstream out;
  out << value;
  return out.str();
}

int choice(const std::string& owner, const std::string& name, const std::string& value, const std::vector<std::string>& known) {
  const auto found = std::find(known.begin(), known.end(), value);
  if (found != known.end()) return static_cast<int>(found - known.begin());
  std::string names;
  for (const std::string& k : known) names += (names.empty() ? "" : ", ") + k;
  throw Error("[" + owner + "] " + name + " must be one of " + names + ", got \"" + value + "\"");
}

Distribution distribution_of(const ClippedPolicy& loss) {
  return static_cast<Distribution>(choice("ClippedPolicy", "distribution", loss.distribution, {"gaussian", "categorical"}));
}

std::vector<Units> Recording::units() const {
  std::vector<Units> groups = network.units();
  for (std::size_t k = 0; k < groups.size(); ++k) groups[k].activity = tape.activities[k];
  return groups;
}

void check_number(const std::string& owner, const std::string& name, const PerRun& value, int runs, double low, double high,
                  bool high_included) {
  if (value.values.size() != 1 && value.values.size() != static_cast<std::size_t>(runs))
    throw Error("[" + owner + "] " + name + " must be one number or " + std::to_string(runs) + " (one for each run), got " +
                std::to_string(value.values.size()));
  for (const double v : value.values)
    if (!std::isfinite(v) || v < low || v > high || (v == high && !high_included))
      throw Error("[" + owner + "] " + name + " must be in [" + number_text(low) + ", " +
                  (std::isinf(high) ? "infinity" : number_text(high)) + (high_included && !std::isinf(high) ? "]" : ")") + ", got " +
                  number_text(v));
}

Ref<double> Recording::number(const std::string& owner, const std::string& name, const PerRun& value, double low, double high,
                              bool high_included) {
  check_number(owner, name, value, network.runs(), low, high, high_included);
  const Ref<double> ref = layout.add<double>(owner + "." + name);
  hyper.emplace_back(ref, value);
  return ref;
}

template <class T>
Ref<T> for_each_weight(Recording& r, const std::string& name) {
  const Ref<T> ref = r.layout.add<T>("optimizer." + name, {r.network.weights_count()});
  Slot& slot = r.layout.slot("optimizer." + name);
  slot.like_weights = slot.cleared_on_restart = true;
  if (r.weight_state.size() == std::size(UnitReplace{}.state)) throw std::logic_error("UnitReplace::state is too short");
  r.weight_state.push_back({{ref.space, ref.offset}});
  return ref;
}
template Ref<float> for_each_weight(Recording& r, const std::string& name);
template Ref<int32_t> for_each_weight(Recording& r, const std::string& name);

namespace {

constexpr double infinity = HUGE_VAL;

const std::vector<std::string> destinations{"zero", "initial"};  // of decay

// Where decay leads to, if not to zero.
Ref<float> origin(const std::string& owner, const std::string& decay_to, const Recording& r) {
  return choice(owner, "decay_to", decay_to, destinations) ? r.network.initial_weights() : Ref<float>{};
}

void record_one(const SGD& o, Recording& r) {
  SgdStep op;
  op.origin = origin("SGD", o.decay_to, r);
  op.count = r.network.weights_count();
  op.weights = r.network.weights();
  op.grads = r.tape.grads;
  const auto& momentum = o.momentum.values;
  if (std::any_of(momentum.begin(), momentum.end(), [](double mu) { return mu != 0; })) op.momentum = for_each_weight<float>(r, "momentum");
  op.step_size = r.number("SGD", "step_size", o.step_size, 0, infinity);
  op.momentum_rate = r.number("SGD", "momentum", o.momentum, 0, 1, false);
  op.weight_decay = r.number("SGD", "weight_decay", o.weight_decay, 0, infinity);
  op.alive = r.alive;
  r.update.push_back(op);
}

template <class O>
void record_adam(const std::string& owner, const O& o, bool epsilon_raw, Recording& r) {
  AdamStep op;
  op.count = r.network.weights_count();
  op.epsilon_raw = epsilon_raw;
  op.decoupled = std::is_same_v<O, AdamW>;
  op.origin = origin(owner, o.decay_to, r);
  op.weights = r.network.weights();
  op.grads = r.tape.grads;
  op.first = for_each_weight<float>(r, "first_moment");
  op.second = for_each_weight<float>(r, "second_moment");
  op.steps = for_each_weight<int32_t>(r, "steps");
  op.step_size = r.number(owner, "step_size", o.step_size, 0, infinity);
  op.beta1 = r.number(owner, "beta1", o.beta1, 0, 1, false);
  op.beta2 = r.number(owner, "beta2", o.beta2, 0, 1, false);
  op.epsilon = r.number(owner, "epsilon", o.epsilon, 0, infinity);
  op.weight_decay = r.number(owner, "weight_decay", o.weight_decay, 0, infinity);
  op.alive = r.alive;
  r.update.push_back(op);
}
void record_one(const Adam& o, Recording& r) {
  record_adam("Adam", o, choice("Adam", "epsilon_at", o.epsilon_at, {"corrected", "raw"}), r);
}
void record_one(const AdamW& o, Recording& r) { record_adam("AdamW", o, false, r); }

void record_one(const HostOptimizer&, Recording& r) { r.pauses.push_back(r.update.size()); }

void record_one(const UPGD& o, Recording& r) {
  UpgdStep op;
  op.count = r.network.weights_count();
  op.maximum_corrected = choice("UPGD", "maximum", o.maximum, {"uncorrected", "corrected"});
  op.key = r.network.perturbation_key();
  op.weights = r.network.weights();
  op.grads = r.tape.grads;
  op.utility = for_each_weight<float>(r, "utility");
  op.steps = for_each_weight<int32_t>(r, "steps");
  op.maximum = r.work.take<float>(1);
  op.step_size = r.number("UPGD", "step_size", o.step_size, 0, infinity);
  op.weight_decay = r.number("UPGD", "weight_decay", o.weight_decay, 0, infinity);
  op.utility_decay = r.number("UPGD", "utility_decay", o.utility_decay, 0, 1, false);
  op.noise = r.number("UPGD", "noise", o.noise, 0, infinity);
  op.factor = r.number("UPGD", "factor", o.factor, 0, infinity);
  op.seed = r.network.seed();
  op.step = r.step;
  op.alive = r.alive;
  r.update.push_back(op);
}

// The groups of a rule that replaces units, of which there can be one.
std::vector<Units> groups_to_replace(const Recording& r, const std::string& owner) {
  if (!r.replaced.empty()) throw Error("[" + owner + "] a learner can have one rule that replaces units");
  std::vector<Units> groups = r.units();
  if (groups.empty()) throw Error("[" + owner + "] the network has no hidden units");
  return groups;
}

// How active units are, and what follows from that: ages, running means, utilities.
void watch(Recording& r, const std::vector<Units>& groups, int measure, Ref<double> decay) {
  for (const Units& g : groups) {
    const std::size_t kept = static_cast<std::size_t>(g.weights_by_position ? g.positions : 1);
    const std::size_t size =
        static_cast<std::size_t>(r.network.backend().activity_parts(g, r.tape.capacity)) * kept * static_cast<std::size_t>(g.units);
    const ActivitySums sums{r.work.take<float>(size), r.work.take<float>(size)};
    r.observe.push_back(UnitActivity{g, sums});
    UnitUtility op{g, sums, measure, decay, r.network.seed(), r.step, {}};
    op.scratch = r.work.take<float>(r.network.backend().scratch(op, r.tape.capacity));
    r.update.push_back(op);
  }
}

// Where a rule says which units of the k-th group are to go.
Ref<uint8_t> add_mask(Recording& r, const std::string& owner, std::size_t k, const Units& group) {
  const std::string name = owner + "." + std::to_string(k) + ".replaced";
  r.replaced.push_back(r.layout.add<uint8_t>(name, {group.units}));
  r.layout.slot(name).cleared_on_restart = true;
  return r.replaced.back();
}

// Where the row of these weights is, or of these biases, among the rows of all layers.
int32_t first_row(const Recording& r, Ref<float> first) {
  const auto at = static_cast<int64_t>((first.offset - r.network.weights().offset) / sizeof(float));
  for (const StepLayer& layer : step_layers(r.network))
    if (layer.weight == at || layer.bias == at) return layer.first_row;
  throw std::logic_error("no row of these weights");
}

void replace(Recording& r, const std::vector<Units>& groups, const std::string& init, bool transfer_mean, bool reset_state) {
  for (std::size_t k = 0; k < groups.size() && r.log.capacity > 0; ++k) {
    const Units& g = groups[k];
    const auto cause = static_cast<int32_t>(r.owners.size()) - 1;
    r.update.push_back(LogEvents{r.log, static_cast<int32_t>(k), g.units, cause, r.replaced[k], g.age, g.utility, r.step});
  }
  for (std::size_t k = 0; k < groups.size(); ++k) {
    const Units& g = groups[k];
    const std::string& distribution = init.empty() ? r.network.options().init : init;
    UnitReplace op{};
    op.group = g;
    op.initial = r.network.initial(g, distribution);
    op.transfer_mean_to_bias = transfer_mean;
    op.replaced = r.replaced[k];
    op.weights = r.network.weights();
    op.origin = r.network.initial_weights();
    op.seed = r.network.seed();
    op.step = r.step;
    const std::vector<Companion> companions = r.network.companions(g);
    if (companions.size() > std::size(op.companions))
      throw Error("[network] between two layers with units there may be normalisations with " + std::to_string(std::size(op.companions)) +
                  " arrays of numbers, got " + std::to_string(companions.size()));
    std::copy(companions.begin(), companions.end(), op.companions);
    for (Companion& companion : op.companions)
      if (companion.learned) companion.first_row = first_row(r, companion.values);
    if (reset_state) {
      std::copy(r.weight_state.begin(), r.weight_state.end(), op.state);
      std::copy(r.unit_state.begin(), r.unit_state.end(), op.unit_state);
      op.first_row = first_row(r, g.incoming);
    }
    r.update.push_back(op);
  }
}

void record_one(const ContinualBackprop& rule, Recording& r, const std::string& owner) {
  const Network& net = r.network;
  const std::vector<Units> groups = groups_to_replace(r, owner);
  const Ref<double> rate = r.number(owner, "replacement_rate", rule.replacement_rate, 0, 1);
  const Ref<double> decay = r.number(owner, "utility_decay", rule.utility_decay, 0, 1, false);
  const Ref<double> maturity = r.number(owner, "maturity", rule.maturity, 0, infinity);
  const int measure = choice(owner, "utility", rule.utility, utility_names());
  const auto count_from = static_cast<CountFrom>(choice(owner, "count_from", rule.count_from, {"eligible", "all"}));
  const auto count_mode = static_cast<CountMode>(choice(owner, "count_mode", rule.count_mode, {"accumulate", "bernoulli"}));

  // All utilities, then all selections, then all replacements, input side first.
  watch(r, groups, measure, decay);
  for (std::size_t k = 0; k < groups.size(); ++k) {
    const Units& g = groups[k];
    const std::string name = owner + "." + std::to_string(k) + ".carry";
    const Ref<double> carry = r.layout.add<double>(name);
    r.layout.slot(name).cleared_on_restart = true;
    const Ref<uint8_t> replaced = add_mask(r, owner, k, g);
    r.update.push_back(UnitSelect{g, count_from, count_mode, rate, maturity, carry, replaced, net.seed(), r.step});
  }
  replace(r, groups, rule.init, rule.transfer_mean_to_bias, rule.reset_optimizer_state);
}

// Utilities are for who looks at them.
void watch_only(Recording& r, const std::string& owner, const std::vector<Units>& groups) {
  watch(r, groups, choice(owner, "utility", "contribution", utility_names()), r.number(owner, "utility_decay", 0.99, 0, 1, false));
}

Ref<double> whole_number(Recording& r, const std::string& owner, const std::string& name, const PerRun& value, double most) {
  for (const double v : value.values)
    if (v != std::floor(v)) throw Error("[" + owner + "] " + name + " must be a whole number, got " + number_text(v));
  return r.number(owner, name, value, 1, most);
}

void record_one(const ReDo& rule, Recording& r, const std::string& owner) {
  const std::vector<Units> groups = groups_to_replace(r, owner);
  const Ref<double> threshold = r.number(owner, "threshold", rule.threshold, 0, infinity);
  const Ref<double> period = whole_number(r, owner, "period", rule.period, 9e15);
  watch_only(r, owner, groups);
  for (std::size_t k = 0; k < groups.size(); ++k)
    r.update.push_back(SelectDormant{groups[k], threshold, period, add_mask(r, owner, k, groups[k]), r.step});
  replace(r, groups, rule.init, false, rule.reset_optimizer_state);
}

void record_one(const SNR& rule, Recording& r, const std::string& owner) {
  const std::vector<Units> groups = groups_to_replace(r, owner);
  SelectSilent op{};
  op.percentile = r.number(owner, "percentile", rule.percentile, 0, 1, false);
  op.period = whole_number(r, owner, "period", rule.period, 9e15);
  constexpr double most = 1 << 30;  // samples; a batch more fits 32 bits
  op.threshold = whole_number(r, owner, "threshold", rule.threshold, most);
  op.longest = whole_number(r, owner, "longest", rule.longest, most);
  op.step = r.step;
  watch_only(r, owner, groups);
  for (std::size_t k = 0; k < groups.size(); ++k) {
    op.group = groups[k];
    if (!op.group.rectified)
      throw Error("[" + owner + "] units must be ReLUs, which fire or are silent, without normalisation behind; those of layer " +
                  std::to_string(op.group.place) + " are not");
    const auto add = [&](const char* name, std::vector<int64_t> shape) {
      const std::string full = owner + "." + std::to_string(k) + "." + name;
      const Ref<int32_t> ref = r.layout.add<int32_t>(full, std::move(shape));
      r.layout.slot(full).cleared_on_restart = true;
      return ref;
    };
    op.silence = add("silence", {op.group.units});
    op.limit = add("limit", {op.group.units});
    op.gaps = add("gaps", {op.group.units, silence_bins});
    op.replaced = add_mask(r, owner, k, op.group);
    r.update.push_back(op);
  }
  replace(r, groups, rule.init, false, rule.reset_optimizer_state);
}

void record_one(const HostRule& rule, Recording& r, const std::string& owner) {
  if (!rule.replaces) return r.pauses.push_back(r.update.size());
  const std::vector<Units> groups = groups_to_replace(r, owner);
  watch_only(r, owner, groups);
  for (std::size_t k = 0; k < groups.size(); ++k) add_mask(r, owner, k, groups[k]);
  r.pauses.push_back(r.update.size());
  replace(r, groups, rule.init, rule.transfer_mean_to_bias, rule.reset_optimizer_state);
}

void record_one(const ShrinkAndPerturb& rule, Recording& r, const std::string& owner) {
  r.update.push_back(Perturb{r.network.weights_count(), r.network.perturbation_key(), r.network.weights(),
                             r.number(owner, "noise", rule.noise, 0, infinity), r.network.seed(), r.step});
}

}  // namespace

void record(const Optimizer& optimizer, Recording& r) {
  std::visit([&](const auto& o) { record_one(o, r); }, optimizer);
}

bool needs_host(const Optimizer& optimizer, const std::vector<Rule>& rules) {
  return std::holds_alternative<HostOptimizer>(optimizer) ||
         std::any_of(rules.begin(), rules.end(), [](const Rule& rule) { return std::holds_alternative<HostRule>(rule); });
}

bool decays_to_initial(const Optimizer& optimizer) {
  return std::visit(
      [](const auto& o) {
        if constexpr (requires { o.decay_to; }) return o.decay_to == destinations[1];
        else return false;
      },
      optimizer);
}

bool record_online(const Recording& r, Program& backward, Program& update) {
  const auto sgd = std::find_if(r.update.begin(), r.update.end(), [](const Operation& op) { return std::holds_alternative<SgdStep>(op); });
  // There is none, or something looks at the gradient before, or a gradient is not a layer's.
  if (sgd != r.update.begin() || r.network.log_std().present()) return false;
  const SgdStep& step = std::get<SgdStep>(*sgd);
  if (step.origin.present()) return false;
  backward.clear();
  for (const Operation& operation : r.tape.backward) {
    const LinearBackward* layer = std::get_if<LinearBackward>(&operation);
    if (!layer && !std::holds_alternative<ActivationBackward>(operation)) return false;
    if (!layer) {
      backward.push_back(operation);
      continue;
    }
    const auto momentum_of = [&](Ref<float> grad) {
      return step.momentum.present() ? Ref<float>{step.momentum.space, step.momentum.offset + grad.offset - step.grads.offset}
                                     : Ref<float>{};
    };
    const Ref<float> bias{step.weights.space, step.weights.offset + layer->grad_bias.offset - step.grads.offset};
    backward.push_back(LinearBackwardSgd{*layer, bias, momentum_of(layer->grad_weight), momentum_of(layer->grad_bias), step});
  }
  update = r.update;
  update.erase(update.begin() + (sgd - r.update.begin()));
  return true;
}

void record(const Rule& rule, Recording& r) {
  static constexpr const char* names[] = {"ContinualBackprop", "ReDo", "SNR", "ShrinkAndPerturb", "HostRule"};
  std::string owner = names[rule.index()];
  for (int n = 2; std::find(r.owners.begin(), r.owners.end(), owner) != r.owners.end(); ++n)
    owner = names[rule.index()] + std::to_string(n);
  r.owners.push_back(owner);
  std::visit([&](const auto& o) { record_one(o, r, owner); }, rule);
}

}  // namespace klopf
