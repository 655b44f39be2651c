#pragma once
#include "klopf/operations/layers.hpp"
#include "klopf/operations/units.hpp"

// Goals of units' own: what changes a unit's incoming weights and bias beside the loss of the network.
namespace klopf {

// On how many samples of a chunk each unit was active, wherever in an image.
struct UnitFiring {
  Units group;
  Ref<float> counts;  // [U]
};

// Whose goal it is.
struct GoalUnits {
  Units group;            // ages, and means and variances of activity, are the goal's own
  Ref<uint8_t> kept;      // [U] who does not follow it; absent: all do
  Ref<uint8_t> replaced;  // [U] who begins anew at this step; absent: nobody
  Ref<double> step_size, decay;
};
// To be active on a share of the samples at least: the bias rises.
struct GoalActive {
  GoalUnits units;
  Ref<float> counts, rate;  // [U]: of this batch, of each chunk; running
  Ref<double> share;
};
// Activity of variance one: incoming weights and bias are scaled.
struct GoalVariance {
  GoalUnits units;
};
// For units of a linear layer, which see samples: to be like what successors lack, or unlike one's peers. The incoming weights' norm stays.
struct GoalCorrelation {
  GoalUnits units;
  int32_t listened;  // partners are errors of successors; else peers
  int32_t partners;  // how many
  Activation activation;
  float slope;              // leaky_relu's
  int32_t linear;           // no activation
  Ref<float> input;         // [B, fan_in]
  Ref<float> grad_output;   // [B, outputs] of the next layer
  Ref<uint8_t> successors;  // [outputs] who count; absent: all
  Ref<float> correlation;   // [U, partners]
  Ref<double> correlation_decay;
  Ref<float> scratch;
};

// To be listened to, by trial: a unit's incoming weights are perturbed, and follow those perturbations under which more than usual of its
// signal was asked for. The weights that the network has are the sum of the unit's own and its perturbation.
struct RememberOutgoing {
  Units group;
  Ref<float> before;  // [outputs, taps, units] as the forward pass finds them
};
struct GoalPerturbation {
  GoalUnits units;
  Ref<float> before;                 // what RememberOutgoing left
  Ref<uint8_t> successors, renewed;  // [outputs] who count, absent: all; and who of these begin anew, absent: nobody
  Ref<float> reward;                 // [U] growth of outgoing weights at this step, over the deviation of activity
  Ref<int32_t> compared;             // [U] how often it was compared with peers
  Ref<float> baseline, square;       // [U] running mean of that, and mean square about it, bias-corrected
  Ref<float> perturbation, trace;    // [U, fan_in + 1] normal numbers, the bias's last
  Ref<float> scale;                  // [U] how much of `perturbation` is in the weights; 0: they are the unit's own
  Ref<double> noise, hold, trace_decay, baseline_decay;
  Ref<uint64_t> seed;
  Ref<int64_t> step;
};

}  // namespace klopf
