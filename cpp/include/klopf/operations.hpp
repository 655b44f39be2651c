#pragma once
#include <stdint.h>

#include "klopf/portable.hpp"

// The operations a recorded step is made of: plain structures that say which arrays and shapes, and nothing about how.
// Shape letters: B batch, C H W channels height width, I inputs, O outputs, U units, K kernel, S positions in an image.
// Inside the engine images are channels-last [B, H, W, C], convolution weights [O, KH, KW, C], and a flattened image is (H, W, C).
//
// Nothing of the standard library is included here: these structures reach the files of the instruction-set levels.
namespace klopf {

// Memory comes in spaces. One block of a space belongs to one run (or, for the workspace, to one thread).
enum : uint32_t { space_work = 0, space_learner = 1, space_network = 2, space_epoch = 3, space_agent = 4, space_count = 8 };

template <class T>
struct Ref {
  uint32_t space = space_count;  // space_count: absent
  uint64_t offset = 0;           // bytes
  KLOPF_MEMBER_FN bool present() const { return space != space_count; }
  bool operator==(const Ref&) const = default;
};

enum class InputType : uint32_t { float32, uint8 };

// Where a step reads its samples. Arrays of a caller, valid during the call.
struct Batch {
  const void* x = nullptr;                            // [N, C, H, W]
  const int32_t* labels = nullptr;                    // [N]
  const float* targets = nullptr;                     // [N, O]
  const uint32_t* order = nullptr;                    // positions of the samples in x; absent: first, first + 1, ...
  const float* scale = nullptr;                       // [C]; absent: 1
  const float* offset = nullptr;                      // [C]; absent: 0
  int64_t x_run = 0, targets_run = 0, order_run = 0;  // to the next run's, where one play is of all runs: bytes; samples; numbers
  int64_t first = 0;
  Ref<int64_t> done;  // samples of the epoch that came before, to be added to `first`; for devices that play all runs at once
  int32_t count = 0;
  int32_t total = 0;  // of the batch that these samples are a chunk of: what means divide by
  InputType type = InputType::float32;
  bool operator==(const Batch&) const = default;
};

// One playing of a list: base addresses of the first blocks and the distance to the next: the next run's, or in the workspace the
// next chunk's of the batch (on devices that play all runs at once: the next run's there too).
struct Play {
  char* base[space_count] = {};
  uint64_t stride[space_count] = {};
  int32_t runs = 1;                    // more only on devices that play all runs at once
  Ref<int32_t> active;                 // there: runs in which this is 0 are left as they are
  int32_t chunks = 1, chunk_size = 0;  // of the batch, where the whole batch is at stake; samples of all chunks but the last
  Batch batch;
  template <class T>
  KLOPF_MEMBER_FN T* at(Ref<T> ref, int block = 0) const {
    return ref.present() ? reinterpret_cast<T*>(base[ref.space] + stride[ref.space] * block + ref.offset) : nullptr;
  }
  KLOPF_MEMBER_FN int32_t count_of(int chunk) const {
    const int32_t left = batch.total - chunk * chunk_size;
    return chunks == 1 || left < chunk_size ? left : chunk_size;
  }
  bool operator==(const Play&) const = default;
};

struct LoadBatch {  // converts, scales and turns [C, H, W] into [H, W, C]
  Ref<float> output;
  int32_t channels, height, width;
};

struct LinearShape {
  int32_t inputs, outputs;
};
struct LinearForward {
  LinearShape shape;
  Ref<float> input, weight, bias, output, scratch;
};
struct LinearBackward {
  LinearShape shape;
  Ref<float> input, weight, grad_output;
  Ref<float> grad_weight, grad_bias;  // absent where only grad_input is wanted
  Ref<float> grad_input;              // absent at the first layer
};

struct ConvShape {
  int32_t channels, height, width;  // input
  int32_t outputs, kernel_height, kernel_width, stride, padding;
  int32_t out_height, out_width;
};
struct ConvForward {
  ConvShape shape;
  Ref<float> input, weight, bias, output, scratch;
};
struct ConvBackward {
  ConvShape shape;
  Ref<float> input, weight, grad_output;
  Ref<float> grad_weight, grad_bias, grad_input, scratch;
};

// Conv2d, ReLU and MaxPool2d (window = stride) at once: only the pooled output and each maximum's position are stored.
struct ConvReluPoolForward {
  ConvShape shape;
  int32_t window, pooled_height, pooled_width;
  Ref<float> input, weight, bias, output, scratch;
  Ref<uint8_t> position;  // of the maximum in its window; no_position where ReLU let nothing through
};
struct ConvReluPoolBackward {
  ConvShape shape;
  int32_t window, pooled_height, pooled_width;
  Ref<float> input, weight, grad_output;
  Ref<uint8_t> position;
  Ref<float> grad_weight, grad_bias, grad_input, scratch;
};
enum : uint8_t { no_position = 255 };

struct PoolShape {
  int32_t channels, height, width, kernel, stride, out_height, out_width;
};
struct MaxPoolForward {
  PoolShape shape;
  Ref<float> input, output;
  Ref<uint8_t> position;
};
struct MaxPoolBackward {
  PoolShape shape;
  Ref<float> grad_output, grad_input;
  Ref<uint8_t> position;
};

enum class Activation : uint32_t { relu, leaky_relu, tanh, sigmoid };
struct ActivationForward {  // input and output may be the same array
  Activation kind;
  float slope;   // leaky_relu's
  int64_t size;  // of one sample
  Ref<float> input, output;
};
struct ActivationBackward {  // from the activation's outputs; grad_output and grad_input may be the same array
  Activation kind;
  float slope;
  int64_t size;
  Ref<float> output, grad_output, grad_input;
};

// y = (x - mean) / sqrt(variance + epsilon) over the numbers of a sample (Ba, Kiros and Hinton 2016, without gain and bias).
struct LayerNormForward {
  float epsilon;
  int64_t size;                           // of one sample
  Ref<float> input, output, inverse_std;  // inverse_std [B]
};
struct LayerNormBackward {
  int64_t size;
  Ref<float> output, inverse_std, grad_output, grad_input;
};

enum class LossKind : uint32_t { cross_entropy, mse, squared_error };
struct Loss {
  LossKind kind;
  int32_t outputs;
  Ref<float> output, grad_output;  // grad_output absent: only evaluated
  Ref<double> loss;                // these samples' part of the mean over the batch
  Ref<int32_t> correct;            // samples classified correctly (cross_entropy)
};

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

// Gradients of a batch are one array in each chunk's workspace; optimizers add them up.
struct SgdStep {
  int64_t count;
  Ref<float> weights, grads, momentum;  // momentum absent where it is zero in all runs
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
  Ref<float> weights, grads, first, second;
  Ref<int32_t> steps;  // of each weight, since its unit was replaced
  Ref<double> step_size, beta1, beta2, epsilon, weight_decay;
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

// Rules by which step sizes, or limits of them, follow from what is learned. Who owns one: the network, a layer, a unit (its incoming
// weights and bias), or every weight.
enum class StepRule : uint32_t { idbd, autostep, obgd, adaptive_obgd };
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
  Ref<float> owner_log_step, owner_scale;        // of each owner, where weights own none: b; v
  Ref<double> sums;                              // scratch [rows, 2]: of -g h and c; or of what a bound is over
  Ref<float> factors;                            // [rows, 2]: step size and [1 - alpha c]^+; or log M; or the step size alone
  Ref<double> step_size, meta_step_size, decay;  // alpha_0; theta or mu or kappa; tau or beta2
  Ref<double> epsilon;
  Ref<int32_t> alive;
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

// The arrays of a group of units. Everything that judges, replaces or protects units is written against this.
struct Units {
  int32_t units, fan_in;
  int32_t positions;            // S: places at which a unit is active (1, or H x W after pooling)
  int32_t outputs, taps;        // outgoing weights [outputs, taps, units]
  int32_t weights_by_position;  // 1: taps are positions (a flattened layer); 0: taps are shared by all positions
  int32_t height, width;        // of the positions
  int32_t place, next_place;    // layers of the incoming and outgoing weights
  int32_t key;                  // of random numbers
  Ref<float> activity;          // [B, S, U]
  Ref<float> incoming, bias;    // [U, fan_in], [U]
  Ref<float> outgoing, next_bias;
  Ref<int32_t> age;                      // [U] parameter updates
  Ref<float> last_activity;              // [U] mean |activity| of the last step
  Ref<float> mean_trace, mean_activity;  // [U] running mean activity, and the same bias-corrected
  Ref<float> utility_trace, utility;     // [U] running utility, and the same bias-corrected: what selection compares
};

enum class Initial : uint32_t { uniform, sparse };
struct InitialDistribution {
  Initial kind;
  float weight_bound, bias_bound;
};
struct DrawWeights {
  InitialDistribution initial;
  int32_t rows, columns, key;
  Ref<float> weight, bias;
  Ref<uint64_t> seed;
  Ref<int64_t> draw;  // how often the network was drawn before
};

// How active units were in the samples of a chunk: sums over these and positions, [U], or where weights are by position over these
// alone, [positions, U]. A backend may keep several parts of them.
struct ActivitySums {
  Ref<float> signed_sum;  // (on the CPU always [U])
  Ref<float> magnitude;   // of |activity|
};
struct UnitActivity {
  Units group;
  ActivitySums sums;
};

struct UnitUtility {
  Units group;
  ActivitySums sums;
  int32_t measure;  // index into rules/utilities.hpp
  Ref<double> utility_decay;
  Ref<uint64_t> seed;
  Ref<int64_t> step;
  Ref<float> scratch;
};

enum class CountFrom : uint32_t { eligible, all };
enum class CountMode : uint32_t { accumulate, bernoulli };
struct UnitSelect {
  Units group;
  CountFrom count_from;
  CountMode count_mode;
  Ref<double> replacement_rate, maturity, carry;
  Ref<uint8_t> replaced;  // [U]
  Ref<uint64_t> seed;
  Ref<int64_t> step;
};

// Every so many steps all units whose share of the layer's activity is low (ReDo).
struct SelectDormant {
  Units group;
  Ref<double> threshold, period;
  Ref<uint8_t> replaced;  // [U]
  Ref<int64_t> step;
};

// State that an optimizer keeps for each weight, in the order of the weights; zero where a unit starts anew.
struct WeightState {
  Ref<uint32_t> values;  // 32-bit words
};
struct UnitReplace {
  Units group;
  InitialDistribution initial;
  int32_t transfer_mean_to_bias;
  Ref<uint8_t> replaced;
  Ref<float> weights;  // start of all the network's weights: where WeightState lines up
  WeightState state[4];
  WeightState unit_state[2];  // the same for each unit of the network; the group's first is first_row
  int32_t first_row;
  Ref<uint64_t> seed;
  Ref<int64_t> step;
};

struct Advance {  // the end of a step
  Ref<int64_t> step;
};

// The one list, in two parts: operations that compute much, and those that concern few numbers. The variant that a program
// holds, the backend's contract and the dispatch follow from it.
#define KLOPF_HEAVY_OPERATIONS(X)                  \
  X(LoadBatch, load_batch)                         \
  X(LinearForward, linear_forward)                 \
  X(LinearBackward, linear_backward)               \
  X(LinearBackwardSgd, linear_backward_sgd)        \
  X(LinearBackwardTrace, linear_backward_trace)    \
  X(ConvForward, conv_forward)                     \
  X(ConvBackward, conv_backward)                   \
  X(ConvReluPoolForward, conv_relu_pool_forward)   \
  X(ConvReluPoolBackward, conv_relu_pool_backward) \
  X(MaxPoolForward, max_pool_forward)              \
  X(MaxPoolBackward, max_pool_backward)            \
  X(ActivationForward, activation_forward)         \
  X(ActivationBackward, activation_backward)       \
  X(LayerNormForward, layer_norm_forward)          \
  X(LayerNormBackward, layer_norm_backward)        \
  X(Loss, loss)                                    \
  X(ClipGradient, clip_gradient)                   \
  X(SgdStep, sgd_step)                             \
  X(AdamStep, adam_step)                           \
  X(Square, square)                                \
  X(UpdateTraces, update_traces)                   \
  X(TraceGradient, trace_gradient)                 \
  X(AddChunks, add_chunks)                         \
  X(MeasureSteps, measure_steps)                   \
  X(ApplySteps, apply_steps)                       \
  X(Perturb, perturb)                              \
  X(UnitActivity, unit_activity)                   \
  X(UnitUtility, unit_utility)

#define KLOPF_LIGHT_OPERATIONS(X)    \
  X(LossTotal, loss_total)           \
  X(BeginEpoch, begin_epoch)         \
  X(Tally, tally)                    \
  X(EndEpoch, end_epoch)             \
  X(PolicyLoss, policy_loss)         \
  X(TdError, td_error)               \
  X(PolicyGradient, policy_gradient) \
  X(ChooseAction, choose_action)     \
  X(DrawAction, draw_action)         \
  X(CurvatureProbe, curvature_probe) \
  X(OwnSteps, own_steps)             \
  X(BoundSteps, bound_steps)         \
  X(DrawWeights, draw_weights)       \
  X(UnitSelect, unit_select)         \
  X(SelectDormant, select_dormant)   \
  X(UnitReplace, unit_replace)       \
  X(Advance, advance)

#define KLOPF_OPERATIONS(X) KLOPF_HEAVY_OPERATIONS(X) KLOPF_LIGHT_OPERATIONS(X)

}  // namespace klopf
