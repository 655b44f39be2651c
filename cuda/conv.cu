// Convolutions alone, and with ReLU and pooling; and linear layers, which are convolutions of an image of one pixel. All are written
// as the most general of them: without pooling, windows are of one pixel and have no position of a maximum.
#include "divider.hpp"
#include "kernels.hpp"
#include "product.hpp"

namespace klopf::cuda {
namespace {

using Forward = ConvReluPoolForward;
using Backward = ConvReluPoolBackward;

__host__ __device__ inline int taps(const ConvShape& s) { return s.kernel_height * s.kernel_width; }
__host__ __device__ inline int fan_in(const ConvShape& s) { return taps(s) * s.channels; }

// A tap (ky, kx, c) of a filter, and the pixel of the input that a filter's first tap reads for an output; as parts of an address.
struct alignas(16) Tap {
  int offset, y, x;
};
struct alignas(16) Pixel {
  int offset, y, x;
};

// The input at a tap of an output; zero outside of the image.
__device__ inline float patch(const ConvShape& s, const float* input, const Pixel& pixel, const Tap& tap) {
  const int y = pixel.y + tap.y, x = pixel.x + tap.x;
  const bool inside =
      static_cast<unsigned>(y) < static_cast<unsigned>(s.height) && static_cast<unsigned>(x) < static_cast<unsigned>(s.width);
  const float value = input[inside ? pixel.offset + tap.offset : 0];  // no branch around a load
  return inside ? value : 0.0f;
}

// From numbers to places: an output's number m = (b, window, pixel of the window), a tap's k = (ky, kx, c). Outputs outside of all
// windows have no number.
struct Outputs {
  ConvShape s;
  int window, pooled_height, pooled_width;
  Divider by_area, by_window, by_image, by_width, by_channels, by_kernel;
  template <class Op>
  explicit Outputs(const Op& op)
      : s(op.shape),
        window(op.window),
        pooled_height(op.pooled_height),
        pooled_width(op.pooled_width),
        by_area(op.window * op.window),
        by_window(op.window),
        by_image(op.pooled_height * op.pooled_width),
        by_width(op.pooled_width),
        by_channels(op.shape.channels),
        by_kernel(op.shape.kernel_width) {}
  __host__ __device__ int area() const { return window * window; }
  __host__ __device__ int64_t count(int64_t samples) const { return samples * pooled_height * pooled_width * area(); }
  __device__ Pixel pixel(int m) const {
    const int group = by_area.quotient(m), in_window = by_area.remainder(m, group), wy = by_window.quotient(in_window);
    const int b = by_image.quotient(group), place = by_image.remainder(group, b), py = by_width.quotient(place);
    const int y = (py * window + wy) * s.stride - s.padding;
    const int x = (by_width.remainder(place, py) * window + by_window.remainder(in_window, wy)) * s.stride - s.padding;
    return {((b * s.height + y) * s.width + x) * s.channels, y, x};
  }
  __device__ Tap tap(int k) const {
    const int at = by_channels.quotient(k), y = by_kernel.quotient(at), x = by_kernel.remainder(at, y);
    return {(y * s.width + x) * s.channels + by_channels.remainder(k, at), y, x};
  }
};

struct ForwardProduct {
  using Indices = Outputs;
  using RowPlace = Pixel;
  using ADepth = Tap;
  using ColumnPlace = int64_t;
  using BDepth = int;
  static constexpr bool a_along_k = true, b_along_k = true, stores_along_rows = false;
  const Outputs& in;
  int count;
  const float *input, *weight, *bias;
  float* output;
  uint8_t* position;
  __device__ ForwardProduct(const Forward& op, const Play& play, int run, const Outputs& indices)
      : in(indices),
        count(play.batch.count),
        input(play.at(op.input, run)),
        weight(play.at(op.weight, run)),
        bias(play.at(op.bias, run)),
        output(play.at(op.output, run)),
        position(play.at(op.position, run)) {}
  __device__ int rows() const { return static_cast<int>(in.count(count)); }
  __device__ int columns() const { return in.s.outputs; }
  __device__ int length() const { return fan_in(in.s); }
  __device__ int group() const { return in.area(); }
  __device__ Pixel row(int m) const { return in.pixel(m); }
  __device__ Tap a_depth(int k) const { return in.tap(k); }
  __device__ int64_t column(int n) const { return static_cast<int64_t>(n) * length(); }
  __device__ int b_depth(int k) const { return k; }
  __device__ float a(const Pixel& pixel, const Tap& tap) const { return patch(in.s, input, pixel, tap); }
  __device__ float b(int64_t filter, int k) const { return weight[filter + k]; }
  __device__ void store(int g, int n, const float* sums, int distance, int) const {
    const int64_t at = static_cast<int64_t>(g) * in.s.outputs + n;
    float best = sums[0];
    int which = 0;
    for (int w = 1; w < group(); ++w) {
      const float v = sums[w * distance];
      if (!(v <= best)) best = v, which = w;  // NaN wins
    }
    best += bias[n];
    if (position) {
      position[at] = static_cast<uint8_t>(best <= 0 ? no_position : which);
      if (best <= 0) best = 0;
    }
    output[at] = best;
  }
};

// dL/dy of outputs, which has one number for each window: that of its maximum.
struct Gradient {
  const float* values;
  const uint8_t* position;
  __device__ float operator()(int at, int in_window) const {
    const float value = values[at];
    return position && position[at] != in_window ? 0.0f : value;
  }
};

// Rows are taps, columns are filters, and the sum is over all outputs. A last row of ones gives the gradient of the biases.
struct WeightProduct {
  struct alignas(8) Place {  // of an output's gradient
    int at, in_window;
  };
  using Indices = Outputs;
  using RowPlace = Tap;
  using ADepth = Pixel;
  using ColumnPlace = int;
  using BDepth = Place;
  static constexpr bool a_along_k = false, b_along_k = false, stores_along_rows = true;
  const Outputs& in;
  int count;
  const float* input;
  Gradient grad_output;
  float *grad_weight, *grad_bias, *parts;
  __device__ WeightProduct(const Backward& op, const Play& play, int run, const Outputs& indices)
      : in(indices),
        count(play.batch.count),
        input(play.at(op.input, run)),
        grad_output{play.at(op.grad_output, run), play.at(op.position, run)},
        grad_weight(play.at(op.grad_weight, run)),
        grad_bias(play.at(op.grad_bias, run)),
        parts(play.at(op.scratch, run)) {}
  __device__ int rows() const { return fan_in(in.s) + 1; }
  __device__ int columns() const { return in.s.outputs; }
  __device__ int length() const { return static_cast<int>(in.count(count)); }
  __device__ int group() const { return 1; }
  __device__ Tap row(int m) const { return m < fan_in(in.s) ? in.tap(m) : Tap{-1, 0, 0}; }
  __device__ Pixel a_depth(int k) const { return in.pixel(k); }
  __device__ int column(int n) const { return n; }
  __device__ Place b_depth(int k) const {
    const int g = in.by_area.quotient(k);
    return {g * in.s.outputs, in.by_area.remainder(k, g)};
  }
  __device__ float a(const Tap& tap, const Pixel& pixel) const { return tap.offset < 0 ? 1.0f : patch(in.s, input, pixel, tap); }
  __device__ float b(int filter, const Place& place) const { return grad_output(place.at + filter, place.in_window); }
  __device__ void put(int m, int n, float sum) const {
    if (m == rows() - 1) grad_bias[n] = sum;
    else grad_weight[static_cast<int64_t>(n) * (rows() - 1) + m] = sum;
  }
  __device__ void store(int m, int n, const float* sum, int, int part) const {
    if (gridDim.y == 1) put(m, n, *sum);
    else parts[(static_cast<int64_t>(part) * columns() + n) * rows() + m] = *sum;
  }
};

__global__ void add_parts_kernel(Backward op, Play play, Outputs indices, int parts) {
  const WeightProduct p(op, play, static_cast<int>(blockIdx.z), indices);
  const int64_t size = static_cast<int64_t>(p.rows()) * p.columns(), i = thread_index();
  if (i >= size) return;
  float sum = 0;
  for (int part = 0; part < parts; ++part) sum += p.parts[part * size + i];
  p.put(static_cast<int>(i % p.rows()), static_cast<int>(i / p.rows()), sum);
}

// Of an input pixel m, over the taps and filters k = (ky, kx, o) that read it.
struct InputProduct {
  struct Indices {
    Outputs out;
    Divider by_image, by_width, by_outputs, by_stride;
    explicit Indices(const Backward& op)
        : out(op),
          by_image(op.shape.height * op.shape.width),
          by_width(op.shape.width),
          by_outputs(op.shape.outputs),
          by_stride(op.shape.stride) {}
  };
  struct alignas(16) Filter {  // a tap's distance, and where filter o's weights of it are
    int y, x, o, weights;
  };
  using RowPlace = Pixel;
  using ADepth = Filter;
  using ColumnPlace = int;
  using BDepth = int;
  static constexpr bool a_along_k = true, b_along_k = false, stores_along_rows = false;
  const Indices& in;
  const ConvShape& s;
  int count;
  const float* weight;
  Gradient grad_output;
  float* grad_input;
  __device__ InputProduct(const Backward& op, const Play& play, int run, const Indices& indices)
      : in(indices),
        s(indices.out.s),
        count(play.batch.count),
        weight(play.at(op.weight, run)),
        grad_output{play.at(op.grad_output, run), play.at(op.position, run)},
        grad_input(play.at(op.grad_input, run)) {}
  __device__ int rows() const { return count * s.height * s.width; }
  __device__ int columns() const { return s.channels; }
  __device__ int length() const { return taps(s) * s.outputs; }
  __device__ int group() const { return 1; }
  __device__ Pixel row(int m) const {
    const int b = in.by_image.quotient(m), place = in.by_image.remainder(m, b), y = in.by_width.quotient(place);
    return {b * in.out.pooled_height, y + s.padding, in.by_width.remainder(place, y) + s.padding};
  }
  __device__ Filter a_depth(int k) const {
    const int tap = in.by_outputs.quotient(k), o = in.by_outputs.remainder(k, tap), y = in.out.by_kernel.quotient(tap);
    return {y, in.out.by_kernel.remainder(tap, y), o, (o * taps(s) + tap) * s.channels};
  }
  __device__ int column(int n) const { return n; }
  __device__ int b_depth(int k) const { return a_depth(k).weights; }
  __device__ float a(const Pixel& pixel, const Filter& filter) const {
    int y = pixel.y - filter.y, x = pixel.x - filter.x;
    bool reads = y >= 0 && x >= 0;
    if (s.stride > 1) {
      const int down = in.by_stride.quotient(y), right = in.by_stride.quotient(x);
      reads = reads && in.by_stride.remainder(y, down) == 0 && in.by_stride.remainder(x, right) == 0;
      y = down;
      x = right;
    }
    const int py = in.out.by_window.quotient(y), px = in.out.by_window.quotient(x);
    reads = reads && py < in.out.pooled_height && px < in.out.pooled_width;
    const int in_window = in.out.by_window.remainder(y, py) * in.out.window + in.out.by_window.remainder(x, px);
    const float grad = grad_output(reads ? ((pixel.offset + py) * in.out.pooled_width + px) * s.outputs + filter.o : 0, in_window);
    return reads ? grad : 0.0f;
  }
  __device__ float b(int channel, int weights) const { return weight[weights + channel]; }
  __device__ void store(int m, int n, const float* sum, int, int) const { grad_input[static_cast<int64_t>(m) * s.channels + n] = *sum; }
};

void check_size(const ConvShape& s, int64_t samples) {
  expect_32_bits(samples * s.channels * s.height * s.width);
  expect_32_bits(samples * s.outputs * s.out_height * s.out_width);
  expect_32_bits(static_cast<int64_t>(s.outputs) * s.channels * s.kernel_height * s.kernel_width);
}

int64_t gradients_of(const ConvShape& s) { return static_cast<int64_t>(s.outputs) * (fan_in(s) + 1); }

// Into how many parts the sum over all outputs is split: enough to keep the device busy, where they do not take too much memory.
int weight_parts(const ConvShape& s, int64_t samples) {
  constexpr int64_t least = 1024, most_floats = 1 << 22;
  const int64_t by_length = samples * s.out_height * s.out_width / least, by_memory = most_floats / gradients_of(s);
  const int64_t parts = by_length < by_memory ? by_length : by_memory;
  return parts < 1 ? 1 : parts > 64 ? 64 : static_cast<int>(parts);
}

ConvShape as_convolution(const LinearShape& s) { return {s.inputs, 1, 1, s.outputs, 1, 1, 1, 0, 1, 1}; }

}  // namespace

void conv_relu_pool_forward(const Queue& queue, const Forward& op, const Play& play) {
  check_size(op.shape, play.batch.count);
  const Outputs outputs(op);
  multiply<ForwardProduct>(queue, op, play, outputs,
                           {outputs.count(play.batch.count), op.shape.outputs, fan_in(op.shape), outputs.area(), 1});
}

void conv_relu_pool_backward(const Queue& queue, const Backward& op, const Play& play) {
  check_size(op.shape, play.batch.count);
  const ConvShape& s = op.shape;
  const InputProduct::Indices indices(op);
  const int parts = op.scratch.present() ? weight_parts(s, play.batch.count) : 1;
  if (op.grad_weight.present())
    multiply<WeightProduct>(queue, op, play, indices.out, {fan_in(s) + 1, s.outputs, indices.out.count(play.batch.count), 1, parts});
  if (parts > 1)
    launch_apart(queue.stream, add_parts_kernel, dim3(blocks_for(gradients_of(s)), 1, static_cast<unsigned>(play.runs)),
                 dim3(block_threads), op, play, indices.out, parts);
  if (op.grad_input.present())
    multiply<InputProduct>(queue, op, play, indices,
                           {static_cast<int64_t>(play.batch.count) * s.height * s.width, s.channels, taps(s) * s.outputs, 1, 1});
}
std::size_t conv_backward_scratch(const ConvShape& s, int capacity) {
  const int parts = weight_parts(s, capacity);
  return parts == 1 ? 0 : static_cast<std::size_t>(parts * gradients_of(s));
}

void conv_forward(const Queue& queue, const ConvForward& op, const Play& play) {
  conv_relu_pool_forward(queue, {op.shape, 1, op.shape.out_height, op.shape.out_width, op.input, op.weight, op.bias, op.output, {}, {}},
                         play);
}

void conv_backward(const Queue& queue, const ConvBackward& op, const Play& play) {
  conv_relu_pool_backward(queue,
                          {op.shape,
                           1,
                           op.shape.out_height,
                           op.shape.out_width,
                           op.input,
                           op.weight,
                           op.grad_output,
                           {},
                           op.grad_weight,
                           op.grad_bias,
                           op.grad_input,
                           op.scratch},
                          play);
}

void linear_forward(const Queue& queue, const LinearForward& op, const Play& play) {
  conv_forward(queue, {as_convolution(op.shape), op.input, op.weight, op.bias, op.output, {}}, play);
}

void linear_backward(const Queue& queue, const LinearBackward& op, const Play& play) {
  conv_backward(queue, {as_convolution(op.shape), op.input, op.weight, op.grad_output, op.grad_weight, op.grad_bias, op.grad_input, {}},
                play);
}

}  // namespace klopf::cuda
