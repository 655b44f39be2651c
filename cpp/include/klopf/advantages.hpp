#pragma once
#include <cstdint>

namespace klopf {

// Generalised advantage estimates (Schulman et al. 2016) of `count` consecutive steps of a run:
//   delta_t = r_t + gamma (1 - terminated_t) V(final observation_t) - V(s_t)
//   A_t = delta_t + gamma lambda (1 - terminated_t)(1 - truncated_t) A_{t+1}
// final_values are of what step t led to, before any reset.
void advantages(const double* rewards, const float* values, const float* final_values, const uint8_t* terminated, const uint8_t* truncated,
                int64_t count, double discount, double trace_decay, double* out);

// Mean 0 and deviation 1, the deviation with n - 1; all 0 where all are equal.
void standardise(double* values, int64_t count);

}  // namespace klopf
