#pragma once
#include "klopf/portable.hpp"

// Which units matter, as a running judgement: what those that matter themselves hear of a unit.
namespace klopf {

// The running variance of an activity, with a batch of so much weight; from its batch mean and mean square, and its running mean before.
KLOPF_FN float running_variance(double variance, double mean, float batch_mean, float batch_square, double weight) {
  const double within = batch_square - batch_mean * batch_mean, shift = batch_mean - mean;  // within one sample: zero, exactly
  return static_cast<float>((1 - weight) * (variance + weight * shift * shift) + weight * (within > 0 ? within : 0));
}

// Earned as fast as the running share grows, lost slowly.
KLOPF_FN void reputation_step(double share, double utility_decay, double reputation_decay, float& running_share, float& reputation) {
  running_share = static_cast<float>(utility_decay * running_share + (1 - utility_decay) * share);
  reputation = running_share > reputation ? running_share
                                          : static_cast<float>(reputation_decay * reputation + (1 - reputation_decay) * running_share);
}

// How slowly a unit loses its reputation; fast, where it hardly varies: variances of its layer sum up to `all`.
KLOPF_FN double reputation_decay_of(float variance, double all, int units, double dormancy, double utility_decay, double reputation_decay) {
  return variance * units < dormancy * all ? utility_decay : reputation_decay;
}

KLOPF_FN bool of_backbone(float reputation, int units, double threshold) { return reputation * units >= threshold; }

// The age at which a unit first was of the backbone; 0: it has not been.
KLOPF_FN int32_t promoted_at(int32_t before, bool backbone, int32_t age) { return before == 0 && backbone ? age : before; }

}  // namespace klopf
