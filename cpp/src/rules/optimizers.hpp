#pragma once
#include <math.h>

#include "klopf/portable.hpp"

// What an optimizer does to one weight w with gradient g.
namespace klopf {

// What a gradient is multiplied by that is to be no longer than `most`, from 16 interleaved sums of its squares (which are added up
// pairwise, in place).
KLOPF_FN float clip_scale(double most, double* parts) {
  for (int half = 8; half > 0; half /= 2)
    for (int k = 0; k < half; ++k) parts[k] += parts[k + half];
  const double scale = most / (sqrt(parts[0]) + 1e-6);
  return scale < 1 ? static_cast<float>(scale) : 1.0f;
}

// v <- mu v + (g + lambda w); w <- w - alpha v
KLOPF_FN void sgd_update(float& w, float g, float& v, float alpha, float mu, float lambda) {
  v = mu * v + (g + lambda * w);
  w = w - alpha * v;
}
KLOPF_FN void sgd_update(float& w, float g, float alpha, float lambda) { w = w - alpha * (g + lambda * w); }  // mu = 0

// Kingma and Ba 2015. With c1 = 1 - beta1^t and c2 = 1 - beta2^t:
//   epsilon "corrected" (PyTorch): w -= alpha / c1 * m / (sqrt(v) / sqrt(c2) + eps)
//   epsilon "raw" (the paper's section 2): w -= alpha sqrt(c2) / c1 * m / (sqrt(v) + eps)
struct AdamCorrection {
  float step, root;  // factors of m / (...) and of sqrt(v)
};
KLOPF_FN AdamCorrection adam_correction(double alpha, double beta1, double beta2, int t, bool epsilon_raw) {
  const double c1 = 1 - pow(beta1, static_cast<double>(t)), root = sqrt(1 - pow(beta2, static_cast<double>(t)));
  return epsilon_raw ? AdamCorrection{static_cast<float>(alpha * root / c1), 1.0f}
                     : AdamCorrection{static_cast<float>(alpha / c1), static_cast<float>(1 / root)};
}
// The age from which on the correction no longer changes: the powers are below what one minus them shows.
KLOPF_FN int32_t adam_settled(double beta1, double beta2) {
  const double slower = beta1 > beta2 ? beta1 : beta2, age = slower > 0 ? 38 / -log(slower) : 0;
  return age < 1e9 ? static_cast<int32_t>(age) + 1 : 1000000000;
}
struct AdamRates {
  float keep1, take1, keep2, take2, epsilon, decay;
};
KLOPF_FN void adam_update(float& w, float g, float& m, float& v, AdamCorrection correction, AdamRates r) {
  g = g + r.decay * w;
  m = r.keep1 * m + r.take1 * g;
  v = r.keep2 * v + r.take2 * (g * g);
  w = w - correction.step * m / (sqrtf(v) * correction.root + r.epsilon);
}

}  // namespace klopf
