#pragma once
#include "klopf/operations/layers.hpp"

// Policies, temporal differences and eligibility traces.
namespace klopf {

// Policies. Gaussian: outputs are the means of the actions, and log sigma is a parameter of its own. Categorical: outputs are logits.
// Softplus: a Gaussian whose outputs are the means, and behind them what softplus makes the deviations of.
enum class Distribution : uint32_t { gaussian, categorical, softplus };
// The clipped surrogate of proximal policy optimisation, less an entropy bonus. A target is an action (its numbers, or its index), the
// logarithm of its probability when it was taken, and its advantage.
struct PolicyLoss {
  Distribution distribution;
  int32_t outputs;
  Ref<float> output, grad_output;  // grad_output absent: only evaluated
  Ref<float> log_std, grad_log_std;
  Ref<double> clip, entropy;
  Ref<double> by_log_probability;  // scratch [B]: the loss's derivative
  Ref<double> inverse_std;         // scratch [outputs]: 1 / sigma
  Ref<double> loss;                // these samples' part of the mean over the batch
  Ref<int32_t> clipped;            // samples whose ratio is outside the clipping range
};
struct DrawAction {  // from the policy of one sample
  Distribution distribution;
  int32_t outputs;
  int64_t step;
  Ref<float> output, log_std;
  Ref<double> inverse_std;  // scratch [outputs]
  Ref<float> action;        // [outputs], or [1]: its index; behind it the logarithm of its probability
  Ref<uint64_t> seed;
};
// Learning by temporal differences, one sample at a time. What follows a sample is judged by the pass `ahead`.
enum class Judge : uint32_t { state, best_action, next_action };  // v(s'), max_a q(s', a), q(s', a')
struct TdError {                                                  // delta = r + gamma v(s') - v(s); and which output's gradient is wanted
  Judge judge;
  int32_t outputs;
  Ref<float> output, ahead, grad_output;
  Ref<double> reward, discount, delta;  // discount: 0 behind the end of an episode
  Ref<int32_t> action, next_action;     // of action values
  Ref<int32_t> alive, active;           // alive: cleared when delta is not finite; active: who takes part in the rest of the step
};
struct PolicyGradient {  // of log pi(a | s) + entropy_weight sign(delta) H
  Distribution distribution;
  int32_t outputs;
  Ref<float> output, grad_output, action;
  Ref<double> delta, entropy_weight;
};
struct ChooseAction {  // the best of values, or with probability epsilon any
  int32_t outputs;
  int64_t step;
  Ref<float> output;
  Ref<double> epsilon;
  Ref<int32_t> action, greedy;
  Ref<uint64_t> seed;
};

// Eligibility traces (Sutton 1988): e <- decay e + g.
struct UpdateTraces {
  int64_t count;
  Ref<float> grads, traces;
  Ref<double> decay;
};
// Of a linear layer at once, nothing stored in between: the gradient of the input, from the weights; traces; sums of their magnitudes by
// row, of which bounds on steps are made.
struct LinearBackwardTrace {
  LinearBackward layer;  // without grad_weight and grad_bias
  Ref<float> traces, bias_traces;
  Ref<double> decay, sums;  // sums as in StepSizes, of this layer's first row on
};
struct TraceGradient {  // g <- -delta e, for optimizers of gradients
  int64_t count;
  Ref<float> traces, grads;
  Ref<double> delta;
};

struct SafeError {  // an error of usual size, from one that may be of any
  int32_t normalise;
  Ref<double> delta, clip, decay, square, size, count;  // count: what the means of its square and of its size are of
  Ref<double> safe;
};

}  // namespace klopf
