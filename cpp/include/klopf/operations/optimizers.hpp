#pragma once
#include "klopf/operations/layers.hpp"
#include "klopf/operations/losses.hpp"

// How weights follow gradients. Gradients of a batch are one array in each chunk's workspace; optimizers add them up.
namespace klopf {

struct SgdStep {
  int64_t count;
  Ref<float> weights, grads, momentum;  // momentum absent where it is zero in all runs
  Ref<float> origin;                    // where decay leads to; absent: zero
  Ref<double> step_size, momentum_rate, weight_decay;
  Ref<int32_t> alive;  // cleared when a weight is no longer finite
};
// At one sample a weight's gradient is grad_output x input: it is applied as it arises, and never stored. One pass over the weights
// gives the gradient of the input, from the old weights, and makes the new ones.
struct LinearBackwardSgd {
  LinearBackward layer;  // without grad_weight and grad_bias
  Ref<float> bias, momentum, bias_momentum;
  SgdStep sgd;  // what else it needs
};
struct AdamStep {
  int64_t count;
  int32_t epsilon_raw;
  int32_t decoupled;  // decay of weights beside the gradient, not in it
  Ref<float> weights, grads, first, second;
  Ref<float> origin;   // as of SgdStep
  Ref<int32_t> steps;  // of each weight, since its unit was replaced
  Ref<double> step_size, beta1, beta2, epsilon, weight_decay;
  Ref<int32_t> alive;
};
// Weights of little utility change most (Elsayed and Mahmood 2024).
struct UpgdStep {
  int64_t count;
  int32_t maximum_corrected, key;
  Ref<float> weights, grads, utility;
  Ref<int32_t> steps;  // as of AdamStep
  Ref<float> maximum;  // scratch: of all utilities
  Ref<double> step_size, weight_decay, utility_decay, noise, factor;
  Ref<uint64_t> seed;
  Ref<int64_t> step;
  Ref<int32_t> alive;
};
// Makes a batch's gradient no longer than a limit, by max / (norm + 1e-6). On the CPU the chunks' gradients are added up before, and but
// for the first are zero from then on.
struct ClipGradient {
  int64_t count;
  Ref<float> grads;
  Ref<double> max_norm;
};

// Curvature: v of each sample with E[v v^T] = the loss's second derivative by the outputs, scaled so that sums over a batch are means.
// Squares of what v propagates back to are the Gauss-Newton diagonal.
struct CurvatureProbe {
  LossKind kind;
  int32_t outputs;
  Ref<float> output, probe;
  Ref<uint64_t> seed;
  Ref<int64_t> step;
};
struct Square {
  int64_t size;  // of one sample
  Ref<float> input, output;
};
struct AddChunks {  // leaves in the first chunk's workspace the sum over all
  int64_t count;
  Ref<float> values;
};

// Rules by which step sizes, or limits of them, follow from what is learned. Who owns one: the network, a layer, a unit (its incoming
// weights and bias), or every weight.
enum class StepRule : uint32_t { idbd, autostep, obgd, adaptive_obgd, meta_optimize, intentional, swift_td, fixed };
enum class Scope : uint32_t { network, layer, unit, weight };
// Weights of a layer: rows are units. Rows and layers of the network are counted on.
struct StepLayer {
  int32_t rows, columns, first_row;
  int64_t weight, bias;  // places among the network's weights; no bias: -1
};
struct StepSizes {
  StepRule rule;
  Scope scope;
  int32_t rows, owners;
  Ref<float> weights, grads, curvature;
  Ref<float> now;                                // where grads are traces: the gradient that they were last given
  Ref<double> delta;                             // likewise: weights move along delta times traces
  Ref<float> trace;                              // h, of each weight
  Ref<float> log_step, scale, count;             // of each weight: b; v; n
  Ref<float> first, first_count;                 // of each weight: m; and what it counts for
  Ref<float> owner_log_step, owner_scale;        // of each owner, where weights own none: b; v, or the mean meta-gradient, or sigma
  Ref<float> owner_count;                        // and what sigma counts for
  Ref<double> sums;                              // scratch [rows, 2]: of -g h and c; or of what a bound is over
  Ref<float> factors;                            // [rows, 2]: step size and [1 - alpha c]^+; or log M; or the step size alone
  Ref<double> step_size, meta_step_size, decay;  // alpha_0; theta or mu or kappa; tau or beta2
  Ref<double> epsilon, first_decay, weight_decay, discount;  // discount: of later losses, or of traces
  Ref<double> lowest, highest;                               // limits of b
  Ref<double> output_step_size;                              // of the last layer, where it is fixed
  Ref<int32_t> alive;
};
struct SwiftStep {  // of a linear network; the traces of `all` are z, its trace h
  StepSizes all;
  int64_t count;
  Ref<float> meta_trace, step_trace, change, before;  // p; z-bar; the last change of weights; h before it
  Ref<double> fade, step_decay;                       // of traces before this gradient; of step sizes
  Ref<int32_t> cut;                                   // whether traces begin here
};
struct MeasureSteps {
  StepSizes all;
  StepLayer layer;
};
struct OwnSteps {  // what rows share: an owner's step size
  StepSizes all;
  int32_t first_row, rows, each_row, owner;  // each_row: each is an owner; else all are one
};
struct BoundSteps {  // and its bound
  StepSizes all;
  int32_t first_row, rows, each_row, owner, owners;  // owners of step sizes among these rows
};
struct ApplySteps {
  StepSizes all;
  StepLayer layer;
};
struct Perturb {  // w += noise * N(0, 1)
  int64_t count;
  int32_t key;
  Ref<float> weights;
  Ref<double> noise;
  Ref<uint64_t> seed;
  Ref<int64_t> step;
};

}  // namespace klopf
