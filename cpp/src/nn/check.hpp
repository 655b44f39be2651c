#pragma once
#include "klopf/network.hpp"

namespace klopf {

// Looks at what a caller hands in before anything reads it; `where` opens the message, as in "learner.step". Throws Error.
void check_samples(const char* where, const Samples& samples);

}  // namespace klopf
