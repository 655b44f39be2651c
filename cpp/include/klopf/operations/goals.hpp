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

}  // namespace klopf
