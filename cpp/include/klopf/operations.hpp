#pragma once
#include "klopf/operations/agents.hpp"
#include "klopf/operations/goals.hpp"
#include "klopf/operations/layers.hpp"
#include "klopf/operations/losses.hpp"
#include "klopf/operations/optimizers.hpp"
#include "klopf/operations/units.hpp"

// The operations a recorded step is made of: plain structures that say which arrays and shapes, and nothing about how.
// Shape letters: B batch, C H W channels height width, I inputs, O outputs, U units, K kernel, S positions in an image.
// Inside the engine images are channels-last [B, H, W, C], convolution weights [O, KH, KW, C], and a flattened image is (H, W, C).

// The one list, in two parts: operations that compute much, and those that concern few numbers. The variant that a program
// holds, the backend's contract and the dispatch follow from it.
#define KLOPF_HEAVY_OPERATIONS(X)                  \
  X(LoadBatch, load_batch)                         \
  X(LinearForward, linear_forward)                 \
  X(LinearBackward, linear_backward)               \
  X(LinearBackwardSgd, linear_backward_sgd)        \
  X(LinearBackwardTrace, linear_backward_trace)    \
  X(ConvForward, conv_forward)                     \
  X(ConvBackward, conv_backward)                   \
  X(ConvReluPoolForward, conv_relu_pool_forward)   \
  X(ConvReluPoolBackward, conv_relu_pool_backward) \
  X(MaxPoolForward, max_pool_forward)              \
  X(MaxPoolBackward, max_pool_backward)            \
  X(ActivationForward, activation_forward)         \
  X(ActivationBackward, activation_backward)       \
  X(LayerNormForward, layer_norm_forward)          \
  X(LayerNormBackward, layer_norm_backward)        \
  X(BatchNormForward, batch_norm_forward)          \
  X(BatchNormBackward, batch_norm_backward)        \
  X(BatchNormApply, batch_norm_apply)              \
  X(ScaleForward, scale_forward)                   \
  X(ScaleBackward, scale_backward)                 \
  X(DropoutForward, dropout_forward)               \
  X(DropoutBackward, dropout_backward)             \
  X(Loss, loss)                                    \
  X(ClipGradient, clip_gradient)                   \
  X(SgdStep, sgd_step)                             \
  X(AdamStep, adam_step)                           \
  X(UpgdStep, upgd_step)                           \
  X(Square, square)                                \
  X(UpdateTraces, update_traces)                   \
  X(TraceGradient, trace_gradient)                 \
  X(AddChunks, add_chunks)                         \
  X(MeasureSteps, measure_steps)                   \
  X(OwnSteps, own_steps)                           \
  X(ApplySteps, apply_steps)                       \
  X(Perturb, perturb)                              \
  X(UnitActivity, unit_activity)                   \
  X(UnitUtility, unit_utility)                     \
  X(UnitFiring, unit_firing)                       \
  X(GoalCorrelation, goal_correlation)             \
  X(RememberOutgoing, remember_outgoing)           \
  X(GoalPerturbation, goal_perturbation)

#define KLOPF_LIGHT_OPERATIONS(X)     \
  X(LossTotal, loss_total)            \
  X(BeginEpoch, begin_epoch)          \
  X(Tally, tally)                     \
  X(EndEpoch, end_epoch)              \
  X(PolicyLoss, policy_loss)          \
  X(TdError, td_error)                \
  X(SafeError, safe_error)            \
  X(PolicyGradient, policy_gradient)  \
  X(ChooseAction, choose_action)      \
  X(DrawAction, draw_action)          \
  X(CurvatureProbe, curvature_probe)  \
  X(SwiftStep, swift_step)            \
  X(BoundSteps, bound_steps)          \
  X(BatchNormTrack, batch_norm_track) \
  X(DrawWeights, draw_weights)        \
  X(DrawWires, draw_wires)            \
  X(CutWires, cut_wires)              \
  X(CutUnits, cut_units)              \
  X(UnitReputation, unit_reputation)  \
  X(UnitSelect, unit_select)          \
  X(UnitGrow, unit_grow)              \
  X(SelectDormant, select_dormant)    \
  X(SelectSilent, select_silent)      \
  X(GoalActive, goal_active)          \
  X(GoalVariance, goal_variance)      \
  X(LogEvents, log_events)            \
  X(UnitReplace, unit_replace)        \
  X(UnitVacate, unit_vacate)          \
  X(UnitRewire, unit_rewire)          \
  X(Advance, advance)

#define KLOPF_OPERATIONS(X) KLOPF_HEAVY_OPERATIONS(X) KLOPF_LIGHT_OPERATIONS(X)
