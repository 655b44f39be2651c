#pragma once
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "klopf/learner.hpp"

namespace klopf {

// A step being recorded: where optimizers and rules put their operations and keep their arrays.
struct Recording {
  const Network& network;
  Layout& layout;
  WorkLayout& work;
  const Tape& tape;
  Program& observe;  // between the forward and the backward pass, chunk by chunk
  Program& update;   // after the backward pass, for the whole batch
  Ref<int64_t> step;
  Ref<int32_t> alive;
  std::vector<std::pair<Ref<double>, PerRun>> hyper{};  // hyper-parameters and their first values
  std::vector<WeightState> weight_state{};              // what the optimizer keeps for each weight
  std::vector<WeightState> unit_state{};                // and for each unit, in the order of rows
  std::vector<Ref<uint8_t>> replaced{};                 // of each unit group, where a rule replaces units
  std::vector<Ref<uint8_t>> backbone{};                 // likewise, where a rule knows who matters
  std::vector<Units> groups{};                          // with what a rule that replaces units keeps of them
  struct Traces {
    Ref<float> values;
    Ref<double> delta, decay, fade;  // decay: of traces before this gradient; fade: while an episode goes on
    Ref<int32_t> cut;                // whether they begin with this gradient
  };
  std::optional<Traces> traces{};         // of gradients, along which weights move
  Ref<double> loss{};                     // of the batch, where there are no traces
  std::optional<StepSizes> step_sizes{};  // where they follow from what is learned
  std::vector<std::string> owners{};      // names of the rules so far
  EventLog log{};                         // of units that are replaced
  std::vector<std::size_t> pauses{};      // places in `update` before which the caller has a turn, in order

  // The network's unit groups, with the activities of this tape.
  std::vector<Units> units() const;
  // A hyper-parameter, as check_number has it.
  Ref<double> number(const std::string& owner, const std::string& name, const PerRun& value, double low, double high,
                     bool high_included = true);
};

// A hyper-parameter of `owner` must be one value or one for each run, in [low, high]. Throws Error.
void check_number(const std::string& owner, const std::string& name, const PerRun& value, int runs, double low, double high,
                  bool high_included = true);

// Every weight's step size, named and shaped like the weights. blocks: what the learner keeps. Throws Error where there is one for all.
std::vector<Array> step_sizes_of(const std::optional<StepSizes>& step_sizes, const Network& network, const Blocks& blocks);

// State of an optimizer for each weight, and that it is as long as they are.
template <class T>
Ref<T> for_each_weight(Recording& recording, const std::string& name);

// An array of a rule for the units of its k-th group.
template <class T>
Ref<T> of_units(Recording& r, const std::string& owner, std::size_t k, const char* array, std::vector<int64_t> shape) {
  const std::string name = owner + "." + std::to_string(k) + "." + array;
  const Ref<T> ref = r.layout.add<T>(name, std::move(shape));
  r.layout.slot(name).cleared_on_restart = true;
  return ref;
}
// How active units are, and what follows from that: ages, running means, utilities. successors: whose weights count, if not all.
void watch(Recording& r, const Units& group, int measure, Ref<double> decay, Ref<uint8_t> successors = {});

std::string number_text(double value);
// A hyper-parameter that is a whole number, from 1 on.
Ref<double> whole_number(Recording& recording, const std::string& owner, const std::string& name, const PerRun& value, double least,
                         double most);
// The index of `value` in the names known. Throws Error.
int choice(const std::string& owner, const std::string& name, const std::string& value, const std::vector<std::string>& known);

Distribution distribution_of(const ClippedPolicy& loss);
void record(const Optimizer& optimizer, Recording& recording);
// Those whose step sizes follow from what is learned.
void record_one(const IDBD& optimizer, Recording& recording);
void record_one(const Autostep& optimizer, Recording& recording);
void record_one(const ObGD& optimizer, Recording& recording);
void record_one(const AdaptiveObGD& optimizer, Recording& recording);
void record_one(const MetaOptimize& optimizer, Recording& recording);
void record_one(const Intentional& optimizer, Recording& recording);
void record_one(const SwiftTD& optimizer, Recording& recording);
bool needs_curvature(const Optimizer& optimizer);
bool needs_host(const Optimizer& optimizer, const std::vector<Rule>& rules);  // whether the caller has a turn in every step
bool decays_to_initial(const Optimizer& optimizer);                           // rather than to zero
// Whether it follows gradients as they are: along traces, times the error.
template <class O>
constexpr bool follows_gradients = std::is_same_v<O, SGD> || std::is_same_v<O, Adam> || std::is_same_v<O, AdamW> || std::is_same_v<O, UPGD>;
// Rows of all layers with weights, in the order of the parameters.
std::vector<StepLayer> step_layers(const Network& network);
// The same backward pass and update for a single sample, without stored gradients; false where that cannot be.
bool record_online(const Recording& recording, Program& backward, Program& update);
void record_one(const Goal& rule, Recording& recording, const std::string& owner);
// Of the k-th group; `op` has the units, with the goal's own statistics, and its hyper-parameters.
void record_perturbation(Recording& recording, const std::string& owner, std::size_t k, GoalPerturbation op);
void record(const Rule& rule, Recording& recording);
// The end of an update: weights of units that do not live, or of wires that are not there, are zero.
void record_absences(Recording& recording);
// Of one group: that units begin, all they own with them.
UnitReplace beginning(const Recording& recording, const Units& group, const std::string& init, Ref<uint8_t> who, bool reset_state);

}  // namespace klopf
