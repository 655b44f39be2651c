#pragma once
#include "klopf/operations/play.hpp"

// Losses, and what is summed over the batches of an epoch.
namespace klopf {

enum class LossKind : uint32_t { cross_entropy, mse, squared_error };
struct Loss {
  LossKind kind;
  int32_t outputs;
  Ref<float> output, grad_output;  // grad_output absent: only evaluated
  Ref<double> loss;                // these samples' part of the mean over the batch
  Ref<int32_t> correct;            // samples classified correctly (cross_entropy)
};

struct LossTotal {       // of a batch, over its chunks; left in the first
  Ref<double> loss;      // absent after a loss of the caller's own
  Ref<int32_t> correct;  // -1 in runs that did not take part, for devices that play all runs at once
  Ref<int32_t> alive;    // cleared when the loss is not finite
  Ref<int32_t> active;   // for devices that play all runs at once: who takes part in the rest of the step
};
// What is summed over the batches of an epoch.
struct EpochSums {
  Ref<double> loss;  // over samples
  Ref<int64_t> correct;
  Ref<int64_t> done;  // samples
};
struct BeginEpoch {
  EpochSums sums;
  int64_t samples;  // to be put into an order; 0: left as they are
  Ref<uint64_t> seed;
  Ref<int64_t> epoch;
  Ref<int32_t> alive;
  Ref<uint64_t> keys;  // room for 2 samples, and as many as the next power of two
  Ref<uint32_t> order;
};
struct Tally {  // adds a batch
  Ref<double> loss;
  Ref<int32_t> correct;
  EpochSums sums;
};
struct EndEpoch {  // means, NaN in runs that no longer learn
  EpochSums sums;
  Ref<int64_t> epoch;  // counted; absent: nothing was learned
  Ref<int32_t> alive;
  int32_t classification;
  int64_t index;
  Ref<double> loss, accuracy;  // [index + 1 or more]
};

}  // namespace klopf
