#pragma once
#include <math.h>
#include <string.h>

#include "klopf/portable.hpp"

// What an optimizer does to one weight w with gradient g.
namespace klopf {

// 1 / (1 + e^-x) without a library call, so that it vectorises: e^-x = 2^n e^r with |r| <= log(2) / 2. Error below 2e-7.
KLOPF_FN float logistic(float x) {
  const float y = x > 80 ? -80 : x < -80 ? 80 : -x;
  const float n = static_cast<float>(static_cast<int32_t>(y * 1.44269504f + (y < 0 ? -0.5f : 0.5f)));
  const float r = (y - n * 0.693145752f) - n * 1.42860677e-6f;
  const float series =
      1 + r * (1 + r * (0.5f + r * (0.16666667f + r * (4.1666667e-2f + r * (8.3333333e-3f + r * (1.3888889e-3f + r * 1.9841270e-4f))))));
  const int32_t bits = (static_cast<int32_t>(n) + 127) << 23;
  float power;
  memcpy(&power, &bits, 4);
  return 1 / (1 + series * power);
}

// What a gradient is multiplied by that is to be no longer than `most`, from 16 interleaved sums of its squares (which are added up
// pairwise, in place).
KLOPF_FN float clip_scale(double most, double* parts) {
  for (int half = 8; half > 0; half /= 2)
    for (int k = 0; k < half; ++k) parts[k] += parts[k + half];
  const double scale = most / (sqrt(parts[0]) + 1e-6);
  return scale < 1 ? static_cast<float>(scale) : 1.0f;
}

// Decay leads to w0.
// v <- mu v + (g + lambda (w - w0)); w <- w - alpha v
KLOPF_FN void sgd_update(float& w, float g, float& v, float alpha, float mu, float lambda, float w0 = 0) {
  v = mu * v + (g + lambda * (w - w0));
  w = w - alpha * v;
}
KLOPF_FN void sgd_update(float& w, float g, float alpha, float lambda, float w0 = 0) {  // mu = 0
  w = w - alpha * (g + lambda * (w - w0));
}

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
  float keep1, take1, keep2, take2, epsilon;
  float decay, apart;  // lambda in the gradient; alpha lambda beside it (Loshchilov and Hutter 2019)
};
KLOPF_FN AdamRates adam_rates(double alpha, double beta1, double beta2, double epsilon, double decay, bool decoupled) {
  return {static_cast<float>(beta1),
          static_cast<float>(1 - beta1),
          static_cast<float>(beta2),
          static_cast<float>(1 - beta2),
          static_cast<float>(epsilon),
          static_cast<float>(decoupled ? 0 : decay),
          static_cast<float>(decoupled ? alpha * decay : 0)};
}
KLOPF_FN void adam_update(float& w, float g, float& m, float& v, AdamCorrection correction, AdamRates r, float w0 = 0) {
  g = g + r.decay * (w - w0);
  m = r.keep1 * m + r.take1 * g;
  v = r.keep2 * v + r.take2 * (g * g);
  w = w - (correction.step * m / (sqrtf(v) * correction.root + r.epsilon) + r.apart * (w - w0));
}

// Elsayed and Mahmood 2024: u <- beta u + (1 - beta)(-g w); s = sigmoid(corrected u / m), m the largest u;
// w <- (1 - alpha lambda) w - c alpha (g + sigma xi)(1 - s). Without any u above zero s is a half.
struct UpgdRates {
  float keep, take, decay, step, noise;  // decay: alpha lambda; step: c alpha
};
KLOPF_FN UpgdRates upgd_rates(double alpha, double beta, double lambda, double sigma, double factor) {
  return {static_cast<float>(beta), static_cast<float>(1 - beta), static_cast<float>(alpha * lambda), static_cast<float>(factor * alpha),
          static_cast<float>(sigma)};
}
// 1 / (1 - beta^t)
KLOPF_FN float upgd_correction(double beta, int32_t t) { return static_cast<float>(1 / (1 - pow(beta, static_cast<double>(t)))); }
KLOPF_FN void upgd_utility(float& u, float w, float g, UpgdRates r) { u = r.keep * u + r.take * -(g * w); }
KLOPF_FN void upgd_update(float& w, float g, float corrected, float maximum, float xi, UpgdRates r) {
  const float s = logistic(maximum > 0 ? corrected / maximum : 0.0f);  // not a branch around it: so it vectorises
  w = w - r.decay * w - r.step * (g + r.noise * xi) * (1 - s);
}

}  // namespace klopf
