#pragma once
#include "klopf/learner.hpp"
#include "nn/check.hpp"

namespace klopf {

// Look at what a caller hands in before anything reads it; `where` opens the message, as in "learner.step". Throw Error.
void check(const char* where, Learner& learner, const Samples& samples);
void check(const Network& network, const LossSpec& loss, const Optimizer& optimizer);  // whether they fit
void check(const RunOptions& options);
void check_batch(const char* where, const Network& network, int64_t count);  // whether it is enough to learn from
// T: int32_t, or int64_t for labels that are still to be narrowed.
template <class T>
void check_labels(const char* where, const T* labels, int64_t count, int64_t outputs);

}  // namespace klopf
