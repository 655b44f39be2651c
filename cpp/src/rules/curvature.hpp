#pragma once
#include <math.h>

#include "klopf/operations.hpp"
#include "klopf/philox.hpp"

// The second derivative H of a loss by a sample's outputs, as a vector v with E[v v^T] = H: what v propagates back to, squared, is on
// average the diagonal of J^T H J (Gauss-Newton). One output, or two classes, leave nothing to chance.
namespace klopf {

KLOPF_FN void curvature_probe(LossKind kind, const float* output, int outputs, uint64_t seed, int64_t step, int64_t sample, double scale,
                              float* probe) {
  const auto draw = [&](int o) {
    return uniform_at(seed, Stream::curvature, static_cast<uint32_t>(o), static_cast<uint64_t>(step), static_cast<uint32_t>(sample));
  };
  if (kind != LossKind::cross_entropy) {  // H = (2 / outputs) 1, or 1: random signs
    const double size = kind == LossKind::mse ? sqrt(2.0 / outputs) : 1.0;
    for (int o = 0; o < outputs; ++o) probe[o] = static_cast<float>((outputs > 1 && draw(o) < 0.5f ? -size : size) * scale);
    return;
  }
  float largest = output[0];
  for (int o = 1; o < outputs; ++o) largest = output[o] > largest ? output[o] : largest;
  double sum = 0;
  for (int o = 0; o < outputs; ++o) sum += exp(static_cast<double>(output[o]) - largest);
  const auto q = [&](int o) { return exp(static_cast<double>(output[o]) - largest) / sum; };
  if (outputs == 2) {  // H = q (1 - q) (1, -1)^T (1, -1)
    const double root = sqrt(q(0) * q(1)) * scale;
    probe[0] = static_cast<float>(root), probe[1] = static_cast<float>(-root);
    return;
  }
  // The gradient for a label drawn from q.
  const double u = draw(0);
  double below = 0;
  int label = 0;
  for (; label + 1 < outputs; ++label)
    if (u < (below += q(label))) break;
  for (int o = 0; o < outputs; ++o) probe[o] = static_cast<float>((q(o) - (o == label)) * scale);
}

}  // namespace klopf
