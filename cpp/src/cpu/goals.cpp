// Goals of units' own that follow from running statistics. One version for all levels.
#include "rules/goals.hpp"

#include "cpu/units.hpp"

namespace klopf::cpu {

void goal_active(const GoalActive& op, const Play& play) {
  const Units& g = op.units.group;
  const double decay = *play.at(op.units.decay), share = *play.at(op.share), step_size = *play.at(op.units.step_size);
  float* rate = play.at(op.rate);
  for (int u = 0; u < g.units; ++u) {
    if (begins_anew(op.units, play, 0, u)) forget(op.units, play, 0, u, rate + u, 1);
    if (!follows(op.units, play, 0, u)) continue;
    float count = 0;
    for (int c = 0; c < play.chunks; ++c) count += play.at(op.counts, c)[u];
    play.at(g.bias)[u] += active_step(count / static_cast<float>(play.batch.total), share, step_size, decay, play.at(g.age)[u], rate[u]);
  }
}

void goal_variance(const GoalVariance& op, const Play& play) {
  const Units& g = op.units.group;
  for (int u = 0; u < g.units; ++u) {
    if (begins_anew(op.units, play, 0, u)) forget(op.units, play, 0, u, nullptr, 0);
    if (!follows(op.units, play, 0, u)) continue;
    const float factor = towards_unit_variance(play.at(g.variance)[u], play.at(g.mean_activity)[u], *play.at(op.units.step_size));
    float* w = play.at(g.incoming) + static_cast<int64_t>(u) * g.fan_in;
    for (int i = 0; i < g.fan_in; ++i) w[i] *= factor;
    play.at(g.bias)[u] *= factor;
  }
}

}  // namespace klopf::cpu
