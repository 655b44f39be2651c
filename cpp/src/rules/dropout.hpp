#pragma once
#include <stdint.h>

#include "klopf/portable.hpp"

// Dropout (Srivastava et al. 2014), inverted: what is kept is larger, so that inference needs to know nothing.
namespace klopf {

KLOPF_FN float dropout_scale(float probability) { return 1 / (1 - probability); }
// The step of random numbers for a sample at this place of a batch.
KLOPF_FN uint64_t dropout_step(int64_t step, int64_t place) { return (static_cast<uint64_t>(step) << 24) + static_cast<uint64_t>(place); }

}  // namespace klopf
