#pragma once
#include "klopf/portable.hpp"

// A running mean, of which `share` is what is new.
namespace klopf {

KLOPF_FN float running(float mean, float now, float share) { return mean + share * (now - mean); }

}  // namespace klopf
