#pragma once
#include <math.h>

#include "klopf/operations.hpp"
#include "rules/dormancy.hpp"
#include "rules/goals.hpp"

// Learning from a reward alone, by perturbing weights. `run` is 0 where a play is of one run.
namespace klopf {

// Whether a successor's weights count: one that begins anew has drawn them, which says nothing of the units before it.
KLOPF_FN bool counts(const GoalPerturbation& op, const Play& play, int run, int successor) {
  const uint8_t *successors = play.at(op.successors, run), *renewed = play.at(op.renewed, run);
  return !(successors && !successors[successor]) && !(renewed && renewed[successor]);
}

// Outgoing weights grow in proportion to activity, so to be loud must not pay.
KLOPF_FN float reward_of(float growth, float variance, float mean) { return varies(variance, mean) ? growth / sqrtf(variance) : 0.0f; }

// What peers got on average; a unit without peers is not compared.
KLOPF_FN float usual_of_peers(double sum, int followers) { return followers > 1 ? static_cast<float>(sum / followers) : 0.0f; }

// How much more than a unit is used to, in its own deviations; at most the root of its memory's length, as this step counts as well.
KLOPF_FN float advantage(float now, double decay, int32_t& compared, float& baseline, float& square) {
  compared += 1;
  const double share = (1 - decay) / (1 - pow(decay, static_cast<double>(compared))), more = static_cast<double>(now) - baseline;
  square = static_cast<float>(square + share * (more * more - square));
  baseline = static_cast<float>(baseline + share * more);
  return square > 0 ? static_cast<float>(more / sqrt(static_cast<double>(square))) : 0.0f;
}

// Whether a unit is perturbed anew at this step: a new perturbation at each serves best where a step's change of outgoing weights is due to
// this step's activity alone. With momentum it is due to those before as well, which took place under others unless that is held.
KLOPF_FN bool draws(const GoalPerturbation& op, const Play& play, int run, float scale) {
  return scale == 0 || every(*play.at(op.step, run), *play.at(op.hold, run));
}

// The size of one of a unit's weights, bias included, from the sum of their squares: steps and perturbations are in proportion to it.
KLOPF_FN float size_of_weight(float squares, int fan_in) { return sqrtf(squares / static_cast<float>(fan_in + 1)); }

// What is known of a unit that begins anew, its trace and perturbation apart. Its new weights are its own.
KLOPF_FN void forget_perturbation(const GoalPerturbation& op, const Play& play, int run, int unit) {
  forget(op.units, play, run, unit, nullptr, 0);
  play.at(op.compared, run)[unit] = 0;
  const Ref<float> numbers[] = {op.reward, op.baseline, op.square, op.scale};
  for (const Ref<float>& number : numbers) play.at(number, run)[unit] = 0;
}

}  // namespace klopf
