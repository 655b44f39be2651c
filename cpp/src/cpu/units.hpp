#pragma once
#include "klopf/operations.hpp"

namespace klopf::cpu {

void loss_total(const LossTotal& op, const Play& play);
void begin_epoch(const BeginEpoch& op, const Play& play);
void tally(const Tally& op, const Play& play);
void end_epoch(const EndEpoch& op, const Play& play);
void policy_loss(const PolicyLoss& op, const Play& play);
void draw_action(const DrawAction& op, const Play& play);
void curvature_probe(const CurvatureProbe& op, const Play& play);
void swift_step(const SwiftStep& op, const Play& play);
void bound_steps(const BoundSteps& op, const Play& play);
void td_error(const TdError& op, const Play& play);
void safe_error(const SafeError& op, const Play& play);
void policy_gradient(const PolicyGradient& op, const Play& play);
void choose_action(const ChooseAction& op, const Play& play);
void draw_weights(const DrawWeights& op, const Play& play);
void unit_select(const UnitSelect& op, const Play& play);
void draw_wires(const DrawWires& op, const Play& play);
void cut_wires(const CutWires& op, const Play& play);
void cut_units(const CutUnits& op, const Play& play);
void unit_rewire(const UnitRewire& op, const Play& play);
void unit_grow(const UnitGrow& op, const Play& play);
void unit_reputation(const UnitReputation& op, const Play& play);
void select_dormant(const SelectDormant& op, const Play& play);
void select_silent(const SelectSilent& op, const Play& play);
void batch_norm_track(const BatchNormTrack& op, const Play& play);
void goal_active(const GoalActive& op, const Play& play);
void goal_variance(const GoalVariance& op, const Play& play);
void log_events(const LogEvents& op, const Play& play);
void unit_replace(const UnitReplace& op, const Play& play);
void unit_vacate(const UnitVacate& op, const Play& play);

}  // namespace klopf::cpu
