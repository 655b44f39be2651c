// Unit rules put their operations into a recording.
#include <algorithm>
#include <cmath>

#include "klopf/error.hpp"
#include "learn/record.hpp"
#include "rules/silences.hpp"
#include "rules/utilities.hpp"

namespace klopf {
namespace {

constexpr double infinity = HUGE_VAL;

// The groups of a rule that replaces units, of which there can be one.
std::vector<Units> groups_to_replace(const Recording& r, const std::string& owner) {
  if (!r.replaced.empty()) throw Error("[" + owner + "] a learner can have one rule that replaces units");
  for (const std::string& other : r.owners)
    if (other.starts_with("Goal") || other.starts_with("Rewire"))
      throw Error("[" + owner + "] a rule that replaces units comes before goals and Rewire in the list of rules");
  std::vector<Units> groups = r.units();
  if (groups.empty()) throw Error("[" + owner + "] the network has no hidden units");
  return groups;
}

// For measures that look at variances.
void keep_variances(Recording& r, const std::string& owner, std::vector<Units>& groups) {
  for (std::size_t k = 0; k < groups.size(); ++k) groups[k].variance = of_units<float>(r, owner, k, "variance", {groups[k].units});
}

// Where a rule says which units of the k-th group are to go.
Ref<uint8_t> add_mask(Recording& r, const std::string& owner, std::size_t k, const Units& group) {
  r.replaced.push_back(of_units<uint8_t>(r, owner, k, "replaced", {group.units}));
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
  r.groups = groups;
  for (std::size_t k = 0; k < groups.size() && r.log.capacity > 0; ++k) {
    const Units& g = groups[k];
    const auto cause = static_cast<int32_t>(r.owners.size()) - 1;
    r.update.push_back(LogEvents{r.log, static_cast<int32_t>(k), g.units, cause, r.replaced[k], g.vacant, g.age, g.utility, r.step});
  }
  for (std::size_t k = 0; k < groups.size(); ++k) {
    UnitReplace op = beginning(r, groups[k], init, r.replaced[k], reset_state);
    op.transfer_mean_to_bias = transfer_mean;
    r.update.push_back(op);
  }
}

// Of the mature units of each group that may go, a share at each step; the rest of a unit's place is carried to the next.
void select(Recording& r, const std::string& owner, const std::vector<Units>& groups, CountFrom count_from, CountMode count_mode,
            Ref<double> rate, Ref<double> maturity, const std::vector<Ref<uint8_t>>& kept = {}) {
  for (std::size_t k = 0; k < groups.size(); ++k) {
    const Ref<double> carry = of_units<double>(r, owner, k, "carry", {});
    const Ref<uint8_t> replaced = add_mask(r, owner, k, groups[k]);
    r.update.push_back(UnitSelect{groups[k], count_from, count_mode, rate, maturity, carry, kept.empty() ? Ref<uint8_t>{} : kept[k],
                                  replaced, r.network.seed(), r.step});
  }
}

void record_one(const ContinualBackprop& rule, Recording& r, const std::string& owner) {
  std::vector<Units> groups = groups_to_replace(r, owner);
  const Ref<double> rate = r.number(owner, "replacement_rate", rule.replacement_rate, 0, 1);
  const Ref<double> decay = r.number(owner, "utility_decay", rule.utility_decay, 0, 1, false);
  const Ref<double> maturity = r.number(owner, "maturity", rule.maturity, 0, infinity);
  const int measure = choice(owner, "utility", rule.utility, utility_names());
  const auto count_from = static_cast<CountFrom>(choice(owner, "count_from", rule.count_from, {"eligible", "all"}));
  const auto count_mode = static_cast<CountMode>(choice(owner, "count_mode", rule.count_mode, {"accumulate", "bernoulli"}));

  // All utilities, then all selections, then all replacements, input side first.
  if (UtilityMeasures::needs[measure].variance) keep_variances(r, owner, groups);
  for (const Units& g : groups) watch(r, g, measure, decay);
  select(r, owner, groups, count_from, count_mode, rate, maturity);
  replace(r, groups, rule.init, rule.transfer_mean_to_bias, rule.reset_optimizer_state);
}

// Reputations, and masks of the units that have enough. From the output side on: what successors of no consequence hear does not count.
std::vector<Ref<uint8_t>> find_backbone(Recording& r, const std::string& owner, std::vector<Units>& groups, const Recruitment& rule) {
  const Ref<double> decay = r.number(owner, "utility_decay", rule.utility_decay, 0, 1, false);
  const Ref<double> reputation_decay = r.number(owner, "reputation_decay", rule.reputation_decay, 0, 1, false);
  const Ref<double> dormancy = r.number(owner, "dormancy", rule.dormancy, 0, infinity);
  const Ref<double> threshold = r.number(owner, "threshold", rule.threshold, 0, infinity);
  const int measure = choice(owner, "utility", VarianceContribution::name, utility_names());
  keep_variances(r, owner, groups);
  std::vector<Ref<uint8_t>> backbone;
  for (std::size_t k = 0; k < groups.size(); ++k) {
    backbone.push_back(of_units<uint8_t>(r, owner, k, "backbone", {groups[k].units}));
    groups[k].promoted = of_units<int32_t>(r, owner, k, "promoted", {groups[k].units});
  }
  for (std::size_t k = groups.size(); k-- > 0;) {
    Units judged = groups[k];
    judged.utility = r.work.take<float>(static_cast<std::size_t>(judged.units));
    watch(r, judged, measure, decay, k + 1 < groups.size() ? backbone[k + 1] : Ref<uint8_t>{});
    r.update.push_back(UnitReputation{groups[k], judged.utility, decay, reputation_decay, dormancy, threshold, backbone[k]});
  }
  return backbone;
}

// Before all else: what the loss says to units outside of the backbone is not heard.
void cut_fringe(Recording& r, const std::vector<Units>& groups) {
  const auto grad = [&](Ref<float> weights) {
    return Ref<float>{r.tape.grads.space, r.tape.grads.offset + weights.offset - r.network.weights().offset};
  };
  for (std::size_t k = 0; k < groups.size(); ++k)
    r.update.insert(r.update.begin(), CutUnits{groups[k], r.backbone[k], grad(groups[k].incoming), grad(groups[k].bias)});
  for (std::size_t& pause : r.pauses) pause += groups.size();
}

// Units that are added where the fringe has too few and the error stays.
void grow(Recording& r, const std::string& owner, const std::vector<Units>& groups, const Recruitment& rule) {
  const bool never = std::all_of(rule.growth_period.values.begin(), rule.growth_period.values.end(), [](double v) { return v == 0; });
  const std::pair<const char*, const PerRun*> own[] = {
      {"candidates", &rule.candidates}, {"tolerated_error", &rule.tolerated_error}, {"progress", &rule.progress}};
  for (const auto& [name, value] : own)
    if (never && value->given()) throw Error("[" + owner + "] " + name + " is for units that are added, and needs a growth_period above 0");
  const Ref<double> period = whole_number(r, owner, "growth_period", rule.growth_period, 0, 9e15);
  if (never) return;
  if (std::none_of(groups.begin(), groups.end(), [](const Units& g) { return g.vacant.present(); }))
    throw Error("[" + owner + "] growth_period needs a layer with room for units, as Linear(64, living=8) has");
  const auto given = [](const PerRun& value, double otherwise) { return value.given() ? value : PerRun(otherwise); };
  UnitGrow op{};
  op.squared = r.traces.has_value();
  op.error = r.traces ? r.traces->delta : r.loss;
  op.error_decay = r.number(owner, "error_decay", rule.utility_decay, 0, 1, false);
  op.period = period;
  op.candidates = r.number(owner, "candidates", given(rule.candidates, 1), 0, infinity);
  op.tolerated_error = r.number(owner, "tolerated_error", given(rule.tolerated_error, 0), 0, infinity);
  op.progress = r.number(owner, "progress", given(rule.progress, 0.05), 0, 1);
  for (std::size_t k = 0; k < groups.size(); ++k) {
    if (!groups[k].vacant.present()) continue;
    op.group = groups[k];
    op.backbone = r.backbone[k];
    op.replaced = r.replaced[k];
    op.sources_vacant = k > 0 ? groups[k - 1].vacant : Ref<uint8_t>{};
    op.sources = k > 0 ? groups[k - 1].units : 0;
    op.running_error = of_units<double>(r, owner, k, "running_error", {});
    op.last_error = of_units<double>(r, owner, k, "last_error", {});
    op.looks = of_units<int64_t>(r, owner, k, "looks", {});
    r.update.push_back(op);
  }
}

void record_one(const Recruitment& rule, Recording& r, const std::string& owner) {
  std::vector<Units> groups = groups_to_replace(r, owner);
  const Ref<double> rate = r.number(owner, "replacement_rate", rule.replacement_rate, 0, 1);
  const Ref<double> maturity = r.number(owner, "maturity", rule.maturity, 0, infinity);
  r.backbone = find_backbone(r, owner, groups, rule);
  if (!rule.backprop_in_fringe) cut_fringe(r, groups);
  select(r, owner, groups, CountFrom::eligible, CountMode::accumulate, rate, maturity, r.backbone);
  grow(r, owner, groups, rule);
  replace(r, groups, rule.init, rule.transfer_mean_to_bias, rule.reset_optimizer_state);
}

void record_one(const Rewire& rule, Recording& r, const std::string& owner) {
  UnitRewire op{};
  op.rate = r.number(owner, "replacement_rate", rule.replacement_rate, 0, 1);
  op.maturity = r.number(owner, "maturity", rule.maturity, 0, infinity);
  op.weights = r.network.weights();
  op.origin = r.network.initial_weights();
  if (rule.reset_optimizer_state) std::copy(r.weight_state.begin(), r.weight_state.end(), op.state);
  op.seed = r.network.seed();
  op.step = r.step;
  const std::vector<Units> groups = r.units();
  if (std::none_of(groups.begin(), groups.end(), [](const Units& g) { return g.wires.present(); }))
    throw Error("[" + owner + "] the network has no units that listen to some of their inputs, as those of Linear(64, wires=8)");
  for (std::size_t k = 0; k < groups.size(); ++k) {
    op.group = groups[k];
    if (!op.group.wires.present()) continue;
    op.carry = of_units<double>(r, owner, k, "carry", {op.group.units});
    op.wire_age = of_units<int32_t>(r, owner, k, "wire_age", {op.group.units, op.group.fan_in});
    op.replaced = r.replaced.empty() ? Ref<uint8_t>{} : r.replaced[k];
    r.update.push_back(op);
  }
}

// Utilities are for who looks at them.
void watch_only(Recording& r, const std::string& owner, const std::vector<Units>& groups) {
  const int measure = choice(owner, "utility", Contribution::name, utility_names());
  const Ref<double> decay = r.number(owner, "utility_decay", 0.99, 0, 1, false);
  for (const Units& g : groups) watch(r, g, measure, decay);
}

void record_one(const ReDo& rule, Recording& r, const std::string& owner) {
  const std::vector<Units> groups = groups_to_replace(r, owner);
  const Ref<double> threshold = r.number(owner, "threshold", rule.threshold, 0, infinity);
  const Ref<double> period = whole_number(r, owner, "period", rule.period, 1, 9e15);
  watch_only(r, owner, groups);
  for (std::size_t k = 0; k < groups.size(); ++k)
    r.update.push_back(SelectDormant{groups[k], threshold, period, add_mask(r, owner, k, groups[k]), r.step});
  replace(r, groups, rule.init, false, rule.reset_optimizer_state);
}

void record_one(const SNR& rule, Recording& r, const std::string& owner) {
  const std::vector<Units> groups = groups_to_replace(r, owner);
  SelectSilent op{};
  op.percentile = r.number(owner, "percentile", rule.percentile, 0, 1, false);
  op.period = whole_number(r, owner, "period", rule.period, 1, 9e15);
  constexpr double most = 1 << 30;  // samples; a batch more fits 32 bits
  op.threshold = whole_number(r, owner, "threshold", rule.threshold, 1, most);
  op.longest = whole_number(r, owner, "longest", rule.longest, 1, most);
  op.step = r.step;
  watch_only(r, owner, groups);
  for (std::size_t k = 0; k < groups.size(); ++k) {
    op.group = groups[k];
    if (!op.group.rectified)
      throw Error("[" + owner + "] units must be ReLUs, which fire or are silent, without normalisation behind; those of layer " +
                  std::to_string(op.group.place) + " are not");
    op.silence = of_units<int32_t>(r, owner, k, "silence", {op.group.units});
    op.limit = of_units<int32_t>(r, owner, k, "limit", {op.group.units});
    op.gaps = of_units<int32_t>(r, owner, k, "gaps", {op.group.units, silence_bins});
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

UnitReplace beginning(const Recording& r, const Units& g, const std::string& init, Ref<uint8_t> who, bool reset_state) {
  UnitReplace op{};
  op.group = g;
  op.initial = r.network.initial(g, init.empty() ? r.network.options().init : init);
  op.replaced = who;
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
  if (!reset_state) return op;
  std::copy(r.weight_state.begin(), r.weight_state.end(), op.state);
  std::copy(r.unit_state.begin(), r.unit_state.end(), op.unit_state);
  op.first_row = first_row(r, g.incoming);
  return op;
}

void record_absences(Recording& r) {
  if (r.groups.empty()) r.groups = r.units();
  for (const Units& group : r.groups)
    for (const Operation& op : r.network.absent(group)) r.update.push_back(op);
}

void watch(Recording& r, const Units& g, int measure, Ref<double> decay, Ref<uint8_t> successors) {
  const std::size_t kept = static_cast<std::size_t>(g.weights_by_position ? g.positions : 1);
  const std::size_t size =
      static_cast<std::size_t>(r.network.backend().activity_parts(g, r.tape.capacity)) * kept * static_cast<std::size_t>(g.units);
  ActivitySums sums{};
  sums.signed_sum = r.work.take<float>(size);
  sums.magnitude = r.work.take<float>(size);
  if (g.variance.present()) sums.square = r.work.take<float>(size);
  r.observe.push_back(UnitActivity{g, sums});
  UnitUtility op{g, sums, measure, successors, decay, r.network.seed(), r.step, {}};
  op.scratch = r.work.take<float>(r.network.backend().scratch(op, r.tape.capacity));
  r.update.push_back(op);
}

void record(const Rule& rule, Recording& r) {
  static constexpr const char* names[] = {"ContinualBackprop", "Recruitment", "ReDo", "SNR", "Rewire", "Goal",
                                          "ShrinkAndPerturb",  "HostRule"};
  std::string owner = names[rule.index()];
  for (int n = 2; std::find(r.owners.begin(), r.owners.end(), owner) != r.owners.end(); ++n)
    owner = names[rule.index()] + std::to_string(n);
  r.owners.push_back(owner);
  std::visit([&](const auto& o) { record_one(o, r, owner); }, rule);
}

}  // namespace klopf
