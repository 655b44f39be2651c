#pragma once
#include <stdint.h>

#include "klopf/portable.hpp"

// ReDo (Sokar et al. 2023): units whose activity, over the layer's mean, is at most a threshold.
namespace klopf {

// Whether the step that ends now, counted from 0, is one of every `period`.
KLOPF_FN bool every(int64_t step, double period) { return (step + 1) % static_cast<int64_t>(period) == 0; }
KLOPF_FN bool redo_dormant(float activity, double sum, int units, double threshold) { return activity * units <= threshold * sum; }

}  // namespace klopf
