#pragma once
#include <math.h>

#include "klopf/operations.hpp"

// Losses of one sample in float64: the value, and through grad its derivative with respect to each output. Both are still to be
// divided by the batch size (a mean over the batch).
namespace klopf {

// -log softmax(output)[label]
KLOPF_FN double cross_entropy(const float* output, int32_t label, int outputs, float* grad, double per_sample) {
  float largest = output[0];
  for (int o = 1; o < outputs; ++o) largest = output[o] > largest ? output[o] : largest;
  double sum = 0;
  for (int o = 0; o < outputs; ++o) sum += exp(static_cast<double>(output[o]) - largest);
  if (grad)
    for (int o = 0; o < outputs; ++o)
      grad[o] = static_cast<float>((exp(static_cast<double>(output[o]) - largest) / sum - (o == label)) * per_sample);
  return log(sum) - (static_cast<double>(output[label]) - largest);
}

// factor * sum_o (output - target)^2: mse has factor 1 / outputs, squared_error 1 / 2.
KLOPF_FN double squared(const float* output, const float* target, int outputs, float* grad, double per_sample, double factor) {
  double sum = 0;
  for (int o = 0; o < outputs; ++o) {
    const double error = static_cast<double>(output[o]) - target[o];
    sum += error * error;
    if (grad) grad[o] = static_cast<float>(2 * factor * error * per_sample);
  }
  return factor * sum;
}

}  // namespace klopf
