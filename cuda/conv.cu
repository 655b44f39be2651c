// Convolutions, and linear layers, which are convolutions of an image of one pixel.
#include "kernels.hpp"
#include "product.hpp"

namespace klopf::cuda {
namespace {

__device__ inline int pixels(const ConvShape& s) { return s.out_height * s.out_width; }
__device__ inline int taps(const ConvShape& s) { return s.kernel_height * s.kernel_width; }

// The input at tap k = (ky, kx, c) of an output pixel m = (b, y, x); zero outside of the image.
__device__ inline float patch(const ConvShape& s, const float* input, int m, int k) {
  const int c = k % s.channels, tap = k / s.channels;
  const int b = m / pixels(s), pixel = m % pixels(s);
  const int y = pixel / s.out_width * s.stride - s.padding + tap / s.kernel_width;
  const int x = pixel % s.out_width * s.stride - s.padding + tap % s.kernel_width;
  if (y < 0 || y >= s.height || x < 0 || x >= s.width) return 0;
  return input[((static_cast<int64_t>(b) * s.height + y) * s.width + x) * s.channels + c];
}

struct ForwardProduct {
  static constexpr bool a_along_k = true, b_along_k = true;
  ConvShape s;
  int count;
  const float *input, *weight, *bias;
  float* output;
  __device__ ForwardProduct(const ConvForward& op, const Play& play, int run)
      : s(op.shape),
        count(play.batch.count),
        input(play.at(op.input, run)),
        weight(play.at(op.weight, run)),
        bias(play.at(op.bias, run)),
        output(play.at(op.output, run)) {}
  __device__ int rows() const { return count * pixels(s); }
  __device__ int columns() const { return s.outputs; }
  __device__ int length() const { return taps(s) * s.channels; }
  __device__ float a(int m, int k) const { return patch(s, input, m, k); }
  __device__ float b(int k, int n) const { return weight[static_cast<int64_t>(n) * length() + k]; }
  __device__ void store(int m, int n, float sum, int) const { output[static_cast<int64_t>(m) * s.outputs + n] = sum + bias[n]; }
};

// Over all pixels of all samples. A last column of ones gives the gradient of the biases.
struct WeightProduct {
  static constexpr bool a_along_k = false, b_along_k = false;
  ConvShape s;
  int count;
  const float *input, *grad_output;
  float *grad_weight, *grad_bias, *parts;
  __device__ WeightProduct(const ConvBackward& op, const Play& play, int run)
      : s(op.shape),
        count(play.batch.count),
        input(play.at(op.input, run)),
        grad_output(play.at(op.grad_output, run)),
        grad_weight(play.at(op.grad_weight, run)),
        grad_bias(play.at(op.grad_bias, run)),
        parts(play.at(op.scratch, run)) {}
  __device__ int rows() const { return s.outputs; }
  __device__ int columns() const { return taps(s) * s.channels + 1; }
  __device__ int length() const { return count * pixels(s); }
  __device__ float a(int m, int k) const { return grad_output[static_cast<int64_t>(k) * s.outputs + m]; }
  __device__ float b(int k, int n) const { return n == columns() - 1 ? 1.0f : patch(s, input, k, n); }
  __device__ void put(int m, int n, float sum) const {
    if (n == columns() - 1) grad_bias[m] = sum;
    else grad_weight[static_cast<int64_t>(m) * (columns() - 1) + n] = sum;
  }
  __device__ void store(int m, int n, float sum, int part) const {
    if (gridDim.y == 1) put(m, n, sum);
    else parts[(static_cast<int64_t>(part) * rows() + m) * columns() + n] = sum;
  }
};

__global__ void add_parts_kernel(ConvBackward op, Play play, int parts) {
  const WeightProduct p(op, play, blockIdx.z);
  const int64_t size = static_cast<int64_t>(p.rows()) * p.columns(), i = thread_index();
  if (i >= size) return;
  float sum = 0;
  for (int part = 0; part < parts; ++part) sum += p.parts[part * size + i];
  p.put(static_cast<int>(i / p.columns()), static_cast<int>(i % p.columns()), sum);
}

// Of an input pixel m, over the taps and filters k = (ky, kx, o) that read it.
struct InputProduct {
  static constexpr bool a_along_k = true, b_along_k = false;
  ConvShape s;
  int count;
  const float *weight, *grad_output;
  float* grad_input;
  __device__ InputProduct(const ConvBackward& op, const Play& play, int run)
      : s(op.shape),
        count(play.batch.count),
        weight(play.at(op.weight, run)),
        grad_output(play.at(op.grad_output, run)),
        grad_input(play.at(op.grad_input, run)) {}
  __device__ int rows() const { return count * s.height * s.width; }
  __device__ int columns() const { return s.channels; }
  __device__ int length() const { return taps(s) * s.outputs; }
  __device__ float a(int m, int k) const {
    const int o = k % s.outputs, tap = k / s.outputs, b = m / (s.height * s.width), pixel = m % (s.height * s.width);
    const int y = pixel / s.width + s.padding - tap / s.kernel_width, x = pixel % s.width + s.padding - tap % s.kernel_width;
    if (y < 0 || x < 0 || y % s.stride || x % s.stride || y / s.stride >= s.out_height || x / s.stride >= s.out_width) return 0;
    return grad_output[((static_cast<int64_t>(b) * s.out_height + y / s.stride) * s.out_width + x / s.stride) * s.outputs + o];
  }
  __device__ float b(int k, int n) const {
    const int o = k % s.outputs, tap = k / s.outputs;
    return weight[(static_cast<int64_t>(o) * taps(s) + tap) * s.channels + n];
  }
  __device__ void store(int m, int n, float sum, int) const { grad_input[static_cast<int64_t>(m) * s.channels + n] = sum; }
};

int64_t weights_of(const ConvShape& s) {
  return static_cast<int64_t>(s.outputs) * (static_cast<int64_t>(s.kernel_height) * s.kernel_width * s.channels + 1);
}

// Into how many parts the sum over all pixels is split: enough to keep the device busy, where they do not take too much memory.
int weight_parts(const ConvShape& s, int64_t samples) {
  constexpr int64_t least = 1024, most_floats = 1 << 22;
  const int64_t by_length = samples * s.out_height * s.out_width / least, by_memory = most_floats / weights_of(s);
  const int64_t parts = by_length < by_memory ? by_length : by_memory;
  return parts < 1 ? 1 : parts > 64 ? 64 : static_cast<int>(parts);
}

ConvShape as_convolution(const LinearShape& s) { return {s.inputs, 1, 1, s.outputs, 1, 1, 1, 0, 1, 1}; }

}  // namespace

void conv_forward(const Queue& queue, const ConvForward& op, const Play& play) {
  const ConvShape& s = op.shape;
  multiply<ForwardProduct>(queue, op, play, static_cast<int64_t>(play.batch.count) * s.out_height * s.out_width, s.outputs,
                           s.kernel_height * s.kernel_width * s.channels);
}

void conv_backward(const Queue& queue, const ConvBackward& op, const Play& play) {
  const ConvShape& s = op.shape;
  const int parts = op.scratch.present() ? weight_parts(s, play.batch.count) : 1;
  const int64_t columns = weights_of(s) / s.outputs;
  multiply<WeightProduct>(queue, op, play, s.outputs, columns, static_cast<int64_t>(play.batch.count) * s.out_height * s.out_width, parts);
  if (parts > 1)
    launch(queue.stream, add_parts_kernel, dim3(blocks_for(weights_of(s)), 1, static_cast<unsigned>(play.runs)), dim3(block_threads), op,
           play, parts);
  if (op.grad_input.present())
    multiply<InputProduct>(queue, op, play, static_cast<int64_t>(play.batch.count) * s.height * s.width, s.channels,
                           s.kernel_height * s.kernel_width * s.outputs);
}
std::size_t conv_backward_scratch(const ConvShape& s, int capacity) {
  const int parts = weight_parts(s, capacity);
  return parts == 1 ? 0 : static_cast<std::size_t>(parts * weights_of(s));
}

void linear_forward(const Queue& queue, const LinearForward& op, const Play& play) {
  conv_forward(queue, {as_convolution(op.shape), op.input, op.weight, op.bias, op.output, {}}, play);
}

void linear_backward(const Queue& queue, const LinearBackward& op, const Play& play) {
  conv_backward(queue, {as_convolution(op.shape), op.input, op.weight, op.grad_output, op.grad_weight, op.grad_bias, op.grad_input, {}},
                play);
}

}  // namespace klopf::cuda
