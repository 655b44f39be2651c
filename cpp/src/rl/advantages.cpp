#include "klopf/advantages.hpp"

#include <cmath>

namespace klopf {

void advantages(const double* rewards, const float* values, const float* final_values, const uint8_t* terminated, const uint8_t* truncated,
                int64_t count, double discount, double trace_decay, double* out) {
  double next = 0;
  for (int64_t t = count - 1; t >= 0; --t) {
    const double delta = rewards[t] + (terminated[t] ? 0 : discount * final_values[t]) - values[t];
    next = delta + (terminated[t] || truncated[t] ? 0 : discount * trace_decay * next);
    out[t] = next;
  }
}

void standardise(double* values, int64_t count) {
  double mean = 0, squares = 0, largest = 0;
  for (int64_t i = 0; i < count; ++i) mean += values[i];
  mean /= static_cast<double>(count);
  for (int64_t i = 0; i < count; ++i) largest = std::fmax(largest, std::fabs(values[i]));
  for (int64_t i = 0; i < count; ++i) squares += (values[i] - mean) * (values[i] - mean);
  const double deviation = count > 1 ? std::sqrt(squares / static_cast<double>(count - 1)) : 0;
  const bool equal = deviation <= 1e-12 * largest;  // but for rounding
  for (int64_t i = 0; i < count; ++i) values[i] = equal ? 0 : (values[i] - mean) / deviation;
}

}  // namespace klopf
