#pragma once
#include "klopf/operations/play.hpp"

// Passes through layers, forward and backward.
namespace klopf {

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

// The same over all samples and positions of a channel (Ioffe and Szegedy 2015), which takes a batch that is in one piece.
struct BatchNormForward {
  float epsilon;
  int32_t channels, positions;
  Ref<float> input, output, mean, variance, inverse_std;  // [channels] of the batch
};
struct BatchNormBackward {
  int32_t channels, positions;
  Ref<float> output, inverse_std, grad_output, grad_input;
  Ref<float> mean, along;  // scratch [channels]: of the gradient; of its products with outputs
};
struct BatchNormTrack {  // running <- (1 - momentum) running + momentum batch's; of the variance over the n - 1 deviation
  float momentum;
  int32_t channels, positions;
  Ref<float> mean, variance, running_mean, running_variance;
};
struct BatchNormApply {  // by what runs
  float epsilon;
  int32_t channels, positions;
  Ref<float> input, output, running_mean, running_variance;
};

// y = gain x + bias. There are so many gains, one for each number of a sample or for each channel; channels come last.
struct ScaleForward {
  int64_t size;  // of one sample
  int32_t gains;
  Ref<float> input, weight, bias, output;
};
struct ScaleBackward {
  int64_t size;
  int32_t gains;
  Ref<float> input, weight, grad_output;
  Ref<float> grad_weight, grad_bias;  // absent where only grad_input is wanted
  Ref<float> grad_input;              // absent at the first layer
};

// Each number is zero with some probability, and else larger by as much (Srivastava et al. 2014, inverted).
struct DropoutForward {
  float probability;
  int32_t key;
  int64_t size;  // of one sample
  Ref<float> input, output;
  Ref<uint8_t> kept;
  Ref<uint64_t> seed;
  Ref<int64_t> step;
};
struct DropoutBackward {
  float probability;
  int64_t size;
  Ref<uint8_t> kept;
  Ref<float> grad_output, grad_input;
};

}  // namespace klopf
