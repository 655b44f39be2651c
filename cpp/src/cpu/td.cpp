// Temporal differences: few numbers, so one version for all levels.
#include "rules/td.hpp"

#include <cmath>

#include "cpu/units.hpp"
#include "rules/policies.hpp"

namespace klopf::cpu {

void td_error(const TdError& op, const Play& play) {
  const double delta = klopf::td_error(op, play, 0);
  *play.at(op.delta) = delta;
  if (!std::isfinite(delta)) *play.at(op.alive) = 0;
  *play.at(op.active) = *play.at(op.alive);
}

void safe_error(const SafeError& op, const Play& play) { klopf::safe_error(op, play, 0); }

void policy_gradient(const PolicyGradient& op, const Play& play) {
  const double delta = *play.at(op.delta), weight = *play.at(op.entropy_weight) * ((delta > 0) - (delta < 0));
  klopf::policy_gradient(op.distribution, play.at(op.output), op.outputs, play.at(op.action), weight, play.at(op.grad_output));
}

void choose_action(const ChooseAction& op, const Play& play) {
  const Choice found = choose(play.at(op.output), op.outputs, *play.at(op.epsilon), *play.at(op.seed), op.step);
  *play.at(op.action) = found.action;
  *play.at(op.greedy) = found.greedy;
}

}  // namespace klopf::cpu
