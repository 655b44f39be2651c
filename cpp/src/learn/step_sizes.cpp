// Optimizers whose step sizes follow from what is learned put their operations into a recording.
#include <algorithm>
#include <cmath>

#include "klopf/error.hpp"
#include "learn/record.hpp"

namespace klopf {
namespace {

constexpr double infinity = HUGE_VAL;
const std::vector<std::string> scopes{"network", "layer", "unit", "weight"};  // in the order of Scope

int32_t rows_of(const std::vector<StepLayer>& layers) { return layers.back().first_row + layers.back().rows; }

// Who shares what: all rows, those of a layer, or each row by itself.
template <class Op, class Put>
void for_owners(Scope scope, const std::vector<StepLayer>& layers, Put put) {
  const int32_t rows = rows_of(layers);
  const auto make = [&](int32_t first_row, int32_t count, bool each_row, int32_t owner, std::size_t of_layers) {
    Op op{};
    op.first_row = first_row, op.rows = count, op.each_row = each_row, op.owner = owner;
    put(op, static_cast<int32_t>(of_layers));
  };
  if (scope == Scope::network) make(0, rows, false, 0, layers.size());
  if (scope == Scope::unit) make(0, rows, true, 0, 1);
  if (scope == Scope::layer)
    for (std::size_t k = 0; k < layers.size(); ++k) make(layers[k].first_row, layers[k].rows, false, static_cast<int32_t>(k), 1);
}

// Layers whose step sizes are learned.
std::vector<StepLayer> learned_layers(const StepSizes& all, const Network& network) {
  std::vector<StepLayer> layers = step_layers(network);
  if (all.output_step_size.present()) layers.pop_back();
  return layers;
}

StepSizes begin(const std::string& owner, StepRule rule, const std::string& scope, Recording& r, const StepLimits& limits = {}) {
  StepSizes all{};
  all.rule = rule;
  all.scope = static_cast<Scope>(choice(owner, "scope", scope, scopes));
  if (limits.output_step_size.given()) {
    if (step_layers(r.network).size() < 2) throw Error("[" + owner + "] output_step_size is of networks with hidden layers");
    all.output_step_size = r.number(owner, "output_step_size", limits.output_step_size, 0, infinity);
  }
  const std::vector<StepLayer> layers = learned_layers(all, r.network);
  for (const StepLayer& layer : step_layers(r.network)) all.rows += layer.rows;
  all.owners = all.scope == Scope::network ? 1 : all.scope == Scope::layer ? static_cast<int32_t>(layers.size()) : rows_of(layers);
  all.weights = r.network.weights();
  all.grads = r.traces ? r.traces->values : r.tape.grads;
  if (r.traces) {
    all.delta = r.traces->delta;
    const bool looks = rule != StepRule::obgd && rule != StepRule::adaptive_obgd && rule != StepRule::meta_optimize;
    if (looks) all.now = r.tape.grads;
  } else {
    all.curvature = r.tape.curvatures;
  }
  all.sums = r.work.take<double>(static_cast<std::size_t>(2 * all.rows));
  all.factors = r.layout.add<float>("optimizer.factors", {all.rows, 2});
  r.layout.slot("optimizer.factors").cleared_on_restart = true;
  all.alive = r.alive;
  for (const Ref<float> values : {all.grads, all.curvature})
    if (values.present() && !r.traces) r.update.push_back(AddChunks{r.network.weights_count(), values});
  return all;
}

template <class Op>
void for_layers(const StepSizes& all, Recording& r) {
  for (const StepLayer& layer : learned_layers(all, r.network)) r.update.push_back(Op{all, layer});
  r.step_sizes = all;
}

// The last layer, where its step size is fixed.
void apply_fixed(StepSizes all, Recording& r) {
  if (!all.output_step_size.present()) return;
  all.rule = StepRule::fixed;
  all.step_size = all.output_step_size;
  r.update.push_back(ApplySteps{all, step_layers(r.network).back()});
}

// State of each owner: of a unit it begins anew where the unit does.
Ref<float> for_each_owner(Recording& r, const StepSizes& all, const std::string& name) {
  const Ref<float> ref = r.layout.add<float>("optimizer." + name, {all.owners});
  r.layout.slot("optimizer." + name).cleared_on_restart = true;
  if (all.scope == Scope::unit) r.unit_state.push_back({{ref.space, ref.offset}, {}});
  return ref;
}

void expect_traces(const std::string& owner, const Recording& r) {
  if (!r.traces) throw Error("[" + owner + "] is of temporal-difference errors and traces: for a StreamAgent, not a Learner");
}

// A step size as the logarithm of its ratio to where step sizes begin.
Ref<double> ratio(Recording& r, const std::string& owner, const std::string& name, const PerRun& value, const PerRun& initial) {
  check_number(owner, name, value, r.network.runs(), 0, infinity);
  PerRun logarithms = PerRun::none();
  for (int run = 0; run < r.network.runs(); ++run) logarithms.values.push_back(std::log(value[run] / initial[run]));
  const Ref<double> ref = r.layout.add<double>(owner + "." + name);
  r.hyper.emplace_back(ref, logarithms);
  return ref;
}

// Between which limits step sizes stay, where those of new units begin, and the decay of weights. After `log_step` has its place.
void limit(const std::string& owner, const StepLimits& limits, const PerRun& initial, StepSizes& all, Recording& r) {
  all.lowest = ratio(r, owner, "minimum_step_size", limits.minimum_step_size, initial);
  if (limits.maximum_step_size.given()) {
    all.highest = ratio(r, owner, "maximum_step_size", limits.maximum_step_size, initial);
    for (int run = 0; run < r.network.runs(); ++run)
      if (limits.maximum_step_size[run] < limits.minimum_step_size[run])
        throw Error("[" + owner + "] maximum_step_size must be at least minimum_step_size, got " +
                    number_text(limits.maximum_step_size[run]) + " and " + number_text(limits.minimum_step_size[run]));
  }
  all.weight_decay = r.number(owner, "weight_decay", limits.weight_decay, 0, infinity);
  if (!limits.newcomer_step_size.given()) return;
  if (all.scope < Scope::unit)
    throw Error("[" + owner + "] newcomer_step_size is of step sizes that units or weights own, got scope=\"" +
                scopes[static_cast<std::size_t>(all.scope)] + "\"");
  const Ref<double> birth = ratio(r, owner, "newcomer_step_size", limits.newcomer_step_size, initial);
  const Ref<float> logarithms = all.scope == Scope::weight ? all.log_step : all.owner_log_step;
  for (std::vector<WeightState>* states : {&r.weight_state, &r.unit_state})
    for (WeightState& state : *states)
      if (state.values.space == logarithms.space && state.values.offset == logarithms.offset) state.birth = birth;
}

void own(const StepSizes& all, Recording& r) {
  for_owners<OwnSteps>(all.scope, learned_layers(all, r.network), [&](OwnSteps op, int32_t) {
    op.all = all;
    r.update.push_back(op);
  });
}
void bound(const StepSizes& all, Scope scope, Recording& r) {
  for_owners<BoundSteps>(scope, learned_layers(all, r.network), [&](BoundSteps op, int32_t layers) {
    op.all = all;
    op.owners = all.scope == Scope::network ? 1 : all.scope == Scope::layer ? layers : op.rows;
    if (all.scope == Scope::unit) op.owner = op.first_row;
    r.update.push_back(op);
  });
}

}  // namespace

std::vector<StepLayer> step_layers(const Network& network) {
  std::vector<StepLayer> layers;
  int32_t rows = 0;
  const auto place = [&](const Parameter& p) { return static_cast<int64_t>((p.ref.offset - network.weights().offset) / sizeof(float)); };
  const std::vector<Parameter>& parameters = network.parameters();
  for (std::size_t k = 0; k < parameters.size(); ++k) {
    const Parameter& p = parameters[k];
    const bool biased = k + 1 < parameters.size() && parameters[k + 1].name.ends_with(".bias");
    // A gain is a row of its own.
    const auto count = static_cast<int32_t>(p.scales ? p.columns : p.rows), columns = static_cast<int32_t>(p.scales ? 1 : p.columns);
    layers.push_back({count, columns, rows, place(p), biased ? place(parameters[k + 1]) : -1});
    rows += count;
    k += biased;
  }
  return layers;
}

bool needs_curvature(const Optimizer& optimizer) {
  return std::holds_alternative<IDBD>(optimizer) || std::holds_alternative<Autostep>(optimizer);
}

void record_one(const IDBD& o, Recording& r) {
  StepSizes all = begin("IDBD", StepRule::idbd, o.scope, r, o);
  all.trace = for_each_weight<float>(r, "trace");
  if (all.scope == Scope::weight) all.log_step = for_each_weight<float>(r, "log_step");
  else all.owner_log_step = for_each_owner(r, all, "log_step");
  all.step_size = r.number("IDBD", "step_size", o.step_size, 0, infinity);
  all.meta_step_size = r.number("IDBD", "meta_step_size", o.meta_step_size, 0, infinity);
  limit("IDBD", o, o.step_size, all, r);
  if (all.scope != Scope::weight) {
    for_layers<MeasureSteps>(all, r);
    own(all, r);
  }
  for_layers<ApplySteps>(all, r);
  apply_fixed(all, r);
}

void record_one(const Autostep& o, Recording& r) {
  StepSizes all = begin("Autostep", StepRule::autostep, o.scope, r, o);
  const auto bounded = static_cast<Scope>(choice("Autostep", "bound", o.bound, {"network", "layer", "unit"}));
  if (all.scope < bounded)
    throw Error("[Autostep] bound must be at least as wide as scope, got scope=\"" + o.scope + "\" and bound=\"" + o.bound +
                "\": set bound to \"" + o.scope + "\"");
  all.trace = for_each_weight<float>(r, "trace");
  if (all.scope == Scope::weight) {
    all.log_step = for_each_weight<float>(r, "log_step");
    all.scale = for_each_weight<float>(r, "scale");
  } else {
    all.owner_log_step = for_each_owner(r, all, "log_step");
    all.owner_scale = for_each_owner(r, all, "scale");
  }
  all.step_size = r.number("Autostep", "step_size", o.step_size, 0, infinity);
  all.meta_step_size = r.number("Autostep", "meta_step_size", o.meta_step_size, 0, infinity);
  all.decay = r.number("Autostep", "time_constant", o.time_constant, 1, infinity);
  limit("Autostep", o, o.step_size, all, r);
  for_layers<MeasureSteps>(all, r);
  if (all.scope != Scope::weight) own(all, r);
  bound(all, bounded, r);
  for_layers<ApplySteps>(all, r);
  apply_fixed(all, r);
}

void record_one(const ObGD& o, Recording& r) {
  StepSizes all = begin("ObGD", StepRule::obgd, o.scope, r);
  all.step_size = r.number("ObGD", "step_size", o.step_size, 0, infinity);
  all.meta_step_size = r.number("ObGD", "kappa", o.kappa, 0, infinity);
  if (all.scope != Scope::weight) {
    for_layers<MeasureSteps>(all, r);
    bound(all, all.scope, r);
  }
  for_layers<ApplySteps>(all, r);
}

void record_one(const AdaptiveObGD& o, Recording& r) {
  StepSizes all = begin("AdaptiveObGD", StepRule::adaptive_obgd, o.scope, r);
  all.scale = for_each_weight<float>(r, "mean_square");
  all.count = for_each_weight<float>(r, "counted");
  all.step_size = r.number("AdaptiveObGD", "step_size", o.step_size, 0, infinity);
  all.meta_step_size = r.number("AdaptiveObGD", "kappa", o.kappa, 0, infinity);
  all.decay = r.number("AdaptiveObGD", "beta2", o.beta2, 0, 1, false);
  all.epsilon = r.number("AdaptiveObGD", "epsilon", o.epsilon, 1e-30, infinity);
  if (all.scope != Scope::weight) {
    for_layers<MeasureSteps>(all, r);
    bound(all, all.scope, r);
  }
  for_layers<ApplySteps>(all, r);
}

void record_one(const MetaOptimize& o, Recording& r) {
  static_cast<void>(choice("MetaOptimize", "scope", o.scope, {"network", "layer", "unit"}));
  StepSizes all = begin("MetaOptimize", StepRule::meta_optimize, o.scope, r);
  all.trace = for_each_weight<float>(r, "trace");
  all.first = for_each_weight<float>(r, "first_moment");
  all.first_count = for_each_weight<float>(r, "first_counted");
  all.scale = for_each_weight<float>(r, "second_moment");
  all.count = for_each_weight<float>(r, "second_counted");
  all.owner_log_step = for_each_owner(r, all, "log_step");
  all.owner_scale = for_each_owner(r, all, "meta_gradient");
  all.step_size = r.number("MetaOptimize", "step_size", o.step_size, 0, infinity);
  all.meta_step_size = r.number("MetaOptimize", "meta_step_size", o.meta_step_size, 0, infinity);
  all.first_decay = r.number("MetaOptimize", "beta1", o.beta1, 0, 1, false);
  all.decay = r.number("MetaOptimize", "beta2", o.beta2, 0, 1, false);
  all.epsilon = r.number("MetaOptimize", "epsilon", o.epsilon, 1e-30, infinity);
  all.weight_decay = r.number("MetaOptimize", "weight_decay", o.weight_decay, 0, infinity);
  all.discount = r.number("MetaOptimize", "discount", o.discount, 0, 1);
  for_layers<MeasureSteps>(all, r);
  own(all, r);
  for_layers<ApplySteps>(all, r);
}

void record_one(const Intentional& o, Recording& r) {
  const std::string owner = "Intentional";
  expect_traces(owner, r);
  static_cast<void>(choice(owner, "scope", o.scope, {"network", "layer", "unit"}));
  StepSizes all = begin(owner, StepRule::intentional, o.scope, r);
  SafeError error{};
  error.normalise = o.normalise_error;
  error.delta = r.traces->delta;
  error.clip = r.number(owner, "clip", o.clip, 0, infinity);
  error.decay = r.number(owner, "clip_decay", o.clip_decay, 0, 1, false);
  const auto keep = [&](const std::string& name) {
    const Ref<double> ref = r.layout.add<double>("optimizer." + name);
    r.layout.slot("optimizer." + name).cleared_on_restart = true;
    return ref;
  };
  error.square = keep("error_square"), error.size = keep("error_size"), error.count = keep("errors_counted");
  error.safe = all.delta = keep("error");
  r.update.push_back(error);
  all.scale = for_each_weight<float>(r, "mean_square");
  all.count = for_each_weight<float>(r, "counted");
  all.owner_scale = for_each_owner(r, all, "sigma");
  all.owner_count = for_each_owner(r, all, "sigma_counted");
  all.discount = r.traces->fade;
  all.step_size = r.number(owner, "step_size", o.step_size, 0, infinity);
  all.decay = r.number(owner, "beta2", o.beta2, 0, 1, false);
  all.epsilon = r.number(owner, "epsilon", 1e-8, 0, 1);
  for_layers<MeasureSteps>(all, r);
  own(all, r);
  for_layers<ApplySteps>(all, r);
}

void record_one(const SwiftTD& o, Recording& r) {
  const std::string owner = "SwiftTD";
  expect_traces(owner, r);
  if (r.network.parameters().size() > 2 || r.tape.backward.size() > 1) throw Error("[SwiftTD] is of linear networks: of one Linear layer");
  SwiftStep op{};
  op.all = begin(owner, StepRule::swift_td, "weight", r);
  op.count = r.network.weights_count();
  op.all.log_step = for_each_weight<float>(r, "log_step");
  op.all.trace = for_each_weight<float>(r, "trace");
  op.before = for_each_weight<float>(r, "trace_before");
  op.meta_trace = for_each_weight<float>(r, "meta_trace");
  op.step_trace = for_each_weight<float>(r, "step_trace");
  op.change = for_each_weight<float>(r, "change");
  op.fade = r.traces->decay;
  op.cut = r.traces->cut;
  op.all.step_size = r.number(owner, "step_size", o.step_size, 1e-30, infinity);
  op.all.meta_step_size = r.number(owner, "meta_step_size", o.meta_step_size, 0, infinity);
  op.all.decay = r.number(owner, "bound", o.bound, 1e-30, infinity);
  op.step_decay = r.number(owner, "decay", o.decay, 1e-30, 1);
  r.update.push_back(op);
  r.step_sizes = op.all;
}

std::vector<Array> Learner::step_sizes() const { return step_sizes_of(step_sizes_, *network_, blocks_); }

std::vector<Array> step_sizes_of(const std::optional<StepSizes>& step_sizes, const Network& network, const Blocks& blocks) {
  if (!step_sizes) throw Error("[step_sizes] the optimizer has one step size for all weights");
  const StepSizes& all = *step_sizes;
  Layout layout(space_learner);
  const Ref<float> out = layout.add<float>("weights", {network.weights_count()});
  layout.slot("weights").like_weights = true;
  const Blocks values(network.runs(), layout.bytes());
  const auto of = [&](Ref<float> ref, int64_t size) {
    return ref.present() ? blocks.fetch(ref, static_cast<std::size_t>(size)) : std::vector<float>{};
  };
  const std::size_t weights = static_cast<std::size_t>(network.weights_count()), rows = static_cast<std::size_t>(all.rows),
                    owners = static_cast<std::size_t>(all.owners);
  const std::vector<float> own = of(all.log_step, network.weights_count()), shared = of(all.owner_log_step, all.owners),
                           factors = of(all.factors, 2 * all.rows);
  const std::vector<double> initial = blocks.fetch(all.step_size);
  const std::vector<StepLayer> layers = step_layers(network);
  const std::vector<double> output = all.output_step_size.present() ? blocks.fetch(all.output_step_size) : std::vector<double>{};
  for (std::size_t run = 0; run < initial.size(); ++run) {
    float* to = values.at(out, static_cast<int>(run));
    for (std::size_t k = 0; k < layers.size(); ++k) {
      const StepLayer& layer = layers[k];
      if (!output.empty() && k + 1 == layers.size()) {
        std::fill_n(to + layer.weight, layer.rows * layer.columns, static_cast<float>(output[run]));
        if (layer.bias >= 0) std::fill_n(to + layer.bias, layer.rows, static_cast<float>(output[run]));
        continue;
      }
      for (int32_t row = 0; row < layer.rows; ++row) {
        const std::size_t at = static_cast<std::size_t>(layer.first_row + row);
        const std::size_t owner = all.scope == Scope::network ? 0 : all.scope == Scope::layer ? k : at;
        const auto put = [&](int64_t place) {
          const std::size_t i = static_cast<std::size_t>(place);
          const bool logarithm = !own.empty() || !shared.empty();
          const double b = own.empty() ? (shared.empty() ? 0 : shared[run * owners + owner]) : own[run * weights + i];
          const float limited = factors[2 * (run * rows + at)];  // of ObGD's last step
          to[i] = logarithm || all.scope == Scope::weight || limited == 0 ? static_cast<float>(initial[run] * std::exp(b)) : limited;
        };
        for (int32_t i = 0; i < layer.columns; ++i) put(layer.weight + static_cast<int64_t>(row) * layer.columns + i);
        if (layer.bias >= 0) put(layer.bias + row);
      }
    }
  }
  return read_slots(layout, values, network.parameters());
}

}  // namespace klopf
