#pragma once
#include <math.h>

#include "klopf/operations.hpp"
#include "rules/normal.hpp"

// Policies, in float64: probabilities of actions, the clipped surrogate of proximal policy optimisation (Schulman et al. 2017), and drawing.
namespace klopf {

// Numbers of a target: an action, the logarithm of its probability, its advantage.
KLOPF_FN int action_size(Distribution distribution, int outputs) {
  return distribution == Distribution::gaussian ? outputs : distribution == Distribution::softplus ? outputs / 2 : 1;
}
KLOPF_FN int policy_target_size(Distribution distribution, int outputs) { return action_size(distribution, outputs) + 2; }

constexpr double half_log_2_pi = 0.91893853320467274178;

KLOPF_FN void fill_inverse_std(Distribution distribution, const float* log_std, int outputs, double* inverse_std) {
  if (distribution == Distribution::gaussian)
    for (int o = 0; o < outputs; ++o) inverse_std[o] = exp(-static_cast<double>(log_std[o]));
}
// (action - mean) / sigma
KLOPF_FN double z_score(float action, float mean, double inverse_std) { return (static_cast<double>(action) - mean) * inverse_std; }
KLOPF_FN double log_density(double z, double log_std) { return -0.5 * z * z - log_std - half_log_2_pi; }

// Logarithm of sum exp(output), and of a softmax.
KLOPF_FN double log_sum(const float* output, int outputs) {
  float largest = output[0];
  for (int o = 1; o < outputs; ++o) largest = output[o] > largest ? output[o] : largest;
  double sum = 0;
  for (int o = 0; o < outputs; ++o) sum += exp(static_cast<double>(output[o]) - largest);
  return log(sum) + largest;
}

KLOPF_FN double log_probability(Distribution distribution, const float* output, const float* log_std, const double* inverse_std,
                                const float* action, int outputs) {
  if (distribution == Distribution::categorical) return output[static_cast<int>(action[0])] - log_sum(output, outputs);
  double sum = 0;
  for (int o = 0; o < outputs; ++o) sum += log_density(z_score(action[o], output[o], inverse_std[o]), log_std[o]);
  return sum;
}

KLOPF_FN double entropy(Distribution distribution, const float* output, const float* log_std, int outputs) {
  double sum = 0;
  if (distribution == Distribution::gaussian) {
    for (int o = 0; o < outputs; ++o) sum += log_std[o] + half_log_2_pi + 0.5;
    return sum;
  }
  const double all = log_sum(output, outputs);
  for (int o = 0; o < outputs; ++o) sum -= exp(output[o] - all) * (output[o] - all);
  return sum;
}

// -min(ratio A, clip(ratio) A), ratio = p / p_old
struct Surrogate {
  double loss, by_log_probability;
  bool clipped;
};
KLOPF_FN Surrogate surrogate(double log_probability, float old, float advantage, double clip) {
  const double ratio = exp(log_probability - old), plain = ratio * advantage;
  const double limited = (ratio < 1 - clip ? 1 - clip : ratio > 1 + clip ? 1 + clip : ratio) * advantage;
  // Where the limited one is smaller, it does not depend on the policy.
  const bool follows = !(plain > limited);
  return {follows ? -plain : -limited, follows ? -plain : 0.0, ratio < 1 - clip || ratio > 1 + clip};
}

// One sample's loss and its derivatives by the outputs, both still to be divided by the batch size; log sigma's come from
// `by_log_probability` when all samples are known.
KLOPF_FN Surrogate policy_sample(const PolicyLoss& op, const float* output, const float* log_std, const double* inverse_std,
                                 const float* target, float* grad, double clip, double entropy_weight, double per_sample) {
  const int outputs = op.outputs, size = action_size(op.distribution, outputs);
  Surrogate found =
      surrogate(log_probability(op.distribution, output, log_std, inverse_std, target, outputs), target[size], target[size + 1], clip);
  const double bonus = entropy_weight == 0 ? 0 : entropy(op.distribution, output, log_std, outputs);
  found.loss -= entropy_weight * bonus;
  if (!grad) return found;
  const double by = found.by_log_probability * per_sample;
  if (op.distribution == Distribution::gaussian) {
    for (int o = 0; o < outputs; ++o) grad[o] = static_cast<float>(by * z_score(target[o], output[o], inverse_std[o]) * inverse_std[o]);
    return found;
  }
  const double all = log_sum(output, outputs);
  for (int o = 0; o < outputs; ++o) {
    const double log_p = output[o] - all, p = exp(log_p);
    grad[o] = static_cast<float>(by * ((o == static_cast<int>(target[0])) - p) + entropy_weight * per_sample * p * (log_p + bonus));
  }
  return found;
}

// Deviations by softplus, log(1 + e^x), and its slope.
KLOPF_FN double softplus(double x) { return x > 30 ? x : log1p(exp(x)); }
KLOPF_FN double softplus_slope(double x) { return 1 / (1 + exp(-x)); }

// d (log pi(a | s) + weight H) / d output.
KLOPF_FN void policy_gradient(Distribution distribution, const float* output, int outputs, const float* action, double weight,
                              float* grad) {
  if (distribution == Distribution::softplus) {
    const int size = outputs / 2;
    for (int o = 0; o < size; ++o) {
      const double std = softplus(output[size + o]), z = (static_cast<double>(action[o]) - output[o]) / std;
      grad[o] = static_cast<float>(z / std);
      grad[size + o] = static_cast<float>(((z * z - 1) + weight) / std * softplus_slope(output[size + o]));
    }
    return;
  }
  const double all = log_sum(output, outputs), h = entropy(distribution, output, nullptr, outputs);
  for (int o = 0; o < outputs; ++o) {
    const double log_p = output[o] - all, p = exp(log_p);
    grad[o] = static_cast<float>((o == static_cast<int>(action[0])) - p - weight * p * (log_p + h));
  }
}

// The o-th number of an action.
KLOPF_FN float normal_at(uint64_t seed, int64_t step, int o) {
  const Random4 r = random4(seed, Stream::actions, 0, static_cast<uint64_t>(step), static_cast<uint32_t>(o / 4));
  const Normal2 normal = o % 4 < 2 ? normal2(r.v[0], r.v[1]) : normal2(r.v[2], r.v[3]);
  return o % 2 == 0 ? normal.first : normal.second;
}
KLOPF_FN float gaussian_action(float mean, float log_std, uint64_t seed, int64_t step, int o) {
  return mean + expf(log_std) * normal_at(seed, step, o);
}
KLOPF_FN int categorical_action(const float* output, int outputs, uint64_t seed, int64_t step) {
  const double all = log_sum(output, outputs), u = uniform_at(seed, Stream::actions, 0, static_cast<uint64_t>(step), 0);
  double sum = 0;
  for (int o = 0; o + 1 < outputs; ++o) {
    sum += exp(output[o] - all);
    if (u < sum) return o;
  }
  return outputs - 1;
}

// An action, and behind it the logarithm of its probability (not of softplus).
KLOPF_FN void draw(const DrawAction& op, const float* output, const float* log_std, double* inverse_std, uint64_t seed, float* action) {
  const int size = action_size(op.distribution, op.outputs);
  fill_inverse_std(op.distribution, log_std, op.outputs, inverse_std);
  if (op.distribution == Distribution::softplus) {
    for (int o = 0; o < size; ++o) action[o] = output[o] + static_cast<float>(softplus(output[size + o])) * normal_at(seed, op.step, o);
    return;
  }
  if (op.distribution == Distribution::categorical) action[0] = static_cast<float>(categorical_action(output, op.outputs, seed, op.step));
  else
    for (int o = 0; o < size; ++o) action[o] = gaussian_action(output[o], log_std[o], seed, op.step, o);
  action[size] = static_cast<float>(log_probability(op.distribution, output, log_std, inverse_std, action, op.outputs));
}

}  // namespace klopf
