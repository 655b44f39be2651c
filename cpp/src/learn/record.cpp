// Optimizers put their operations into a recording.
#include "learn/record.hpp"

#include <algorithm>
#include <cmath>
#include <sstream>

#include "klopf/error.hpp"
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

Ref<double> whole_number(Recording& r, const std::string& owner, const std::string& name, const PerRun& value, double least, double most) {
  for (const double v : value.values)
    if (v != std::floor(v)) throw Error("[" + owner + "] " + name + " must be a whole number, got " + number_text(v));
  return r.number(owner, name, value, least, most);
}

template <class T>
Ref<T> for_each_weight(Recording& r, const std::string& name) {
  const Ref<T> ref = r.layout.add<T>("optimizer." + name, {r.network.weights_count()});
  Slot& slot = r.layout.slot("optimizer." + name);
  slot.like_weights = slot.cleared_on_restart = true;
  if (r.weight_state.size() == std::size(UnitReplace{}.state)) throw std::logic_error("UnitReplace::state is too short");
  r.weight_state.push_back({{ref.space, ref.offset}, {}});
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

}  // namespace klopf
