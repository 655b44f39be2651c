#pragma once
#include <math.h>

#include "klopf/operations.hpp"
#include "rules/activations.hpp"
#include "rules/growth.hpp"

// Goals of units' own. `run` is 0 where a play is of one run.
namespace klopf {

// Where an image or a sample counts as one in which a unit is active: behind ReLU above 0, else as in klopf.metrics.
KLOPF_FN float active_level(const Units& group) { return group.rectified ? 0.0f : 0.01f; }

KLOPF_FN bool begins_anew(const GoalUnits& goal, const Play& play, int run, int unit) {
  const uint8_t* replaced = play.at(goal.replaced, run);
  return (replaced && replaced[unit]) || !lives(goal.group, play, run, unit);
}
KLOPF_FN bool follows(const GoalUnits& goal, const Play& play, int run, int unit) {
  const uint8_t* kept = play.at(goal.kept, run);
  return !begins_anew(goal, play, run, unit) && !(kept && kept[unit]);
}

// What a goal knows of a unit that begins anew, and `more` [count] of it.
KLOPF_FN void forget(const GoalUnits& goal, const Play& play, int run, int unit, float* more, int count) {
  const Units& g = goal.group;
  play.at(g.age, run)[unit] = 0;
  const Ref<float> statistics[] = {g.mean_trace, g.mean_activity, g.variance};
  for (const Ref<float>& statistic : statistics)
    if (statistic.present()) play.at(statistic, run)[unit] = 0;
  for (int i = 0; i < count; ++i) more[i] = 0;
}

// 1, or 0 where a unit does not listen to an input; of `wires`, absent where all listen to all.
KLOPF_FN float wire(const float* wires, int64_t i) { return wires ? wires[i] : 1.0f; }

// By how much a bias rises where a unit is active on less than a share of the samples; `now` of a batch, `rate` before bias correction.
KLOPF_FN float active_step(double now, double share, double step_size, double decay, int32_t& age, float& rate) {
  age += 1;
  rate = static_cast<float>(decay * rate + (1 - decay) * now);
  const double corrected = rate / (1 - pow(decay, static_cast<double>(age)));
  return corrected < share ? static_cast<float>(step_size * (share - corrected) / share) : 0.0f;
}

// Whether an activity is more than a constant and its rounding.
KLOPF_FN bool varies(float variance, float mean) { return variance > 1e-6f * mean * mean; }

// What incoming weights are multiplied by, towards a standard deviation of one.
KLOPF_FN float towards_unit_variance(float variance, float mean, double step_size) {
  return varies(variance, mean) ? static_cast<float>(exp(-0.5 * step_size * log(static_cast<double>(variance)))) : 1.0f;
}
KLOPF_FN float normalised(float y, float mean, float variance) { return varies(variance, mean) ? (y - mean) / sqrtf(variance) : 0.0f; }

// With which weight a unit follows a partner, to whose signal it is correlated like this.
KLOPF_FN float pull(const GoalCorrelation& op, float correlation, const uint8_t* successors, int unit, int partner) {
  if (op.listened) return successors && !successors[partner] ? 0.0f : correlation > 0 ? 1.0f : correlation < 0 ? -1.0f : 0.0f;
  return partner == unit ? 0.0f : -correlation / static_cast<float>(op.partners - 1);
}

KLOPF_FN float slope_of(const GoalCorrelation& op, float y) {
  float slope = 1;
  if (!op.linear) with_activation(op.activation, [&](auto activation) { slope = activation.slope(y, op.slope); });
  return slope;
}

}  // namespace klopf
