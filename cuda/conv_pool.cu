// Conv2d, ReLU and MaxPool2d: the convolution goes to scratch memory, and from there to the pooled output; and back.
#include "common.hpp"
#include "kernels.hpp"

namespace klopf::cuda {

void conv_relu_pool_forward(const Queue& queue, const ConvReluPoolForward& op, const Play& play) {
  const ConvShape s = op.shape;
  conv_forward(queue, {s, op.input, op.weight, op.bias, op.scratch, {}}, play);
  const int64_t size = static_cast<int64_t>(op.pooled_height) * op.pooled_width * s.outputs;
  for_each(queue, play, size * play.batch.count, [op, play, s, size] __device__(int run, int64_t i) {
    const int o = static_cast<int>(i % s.outputs), place = static_cast<int>(i / s.outputs % (op.pooled_height * op.pooled_width));
    const int y = place / op.pooled_width * op.window, x = place % op.pooled_width * op.window;
    const float* values = play.at(op.scratch, run) + i / size * s.out_height * s.out_width * s.outputs + o;
    const auto value = [&](int w) {
      return values[(static_cast<int64_t>(y + w / op.window) * s.out_width + x + w % op.window) * s.outputs];
    };
    float best = value(0);
    int position = 0;
    for (int w = 1; w < op.window * op.window; ++w) {
      const float v = value(w);
      if (!(v <= best)) best = v, position = w;  // NaN wins
    }
    play.at(op.output, run)[i] = best <= 0 ? 0.0f : best;
    play.at(op.position, run)[i] = static_cast<uint8_t>(best <= 0 ? no_position : position);
  });
}

void conv_relu_pool_backward(const Queue& queue, const ConvReluPoolBackward& op, const Play& play) {
  const ConvShape s = op.shape;
  const int64_t size = static_cast<int64_t>(s.out_height) * s.out_width * s.outputs;
  for_each(queue, play, size * play.batch.count, [op, play, s, size] __device__(int run, int64_t i) {
    const int o = static_cast<int>(i % s.outputs), pixel = static_cast<int>(i / s.outputs % (s.out_height * s.out_width));
    const int y = pixel / s.out_width, x = pixel % s.out_width;
    float grad = 0;
    if (y / op.window < op.pooled_height && x / op.window < op.pooled_width) {
      const int64_t at =
          ((i / size * op.pooled_height + y / op.window) * op.pooled_width + x / op.window) * static_cast<int64_t>(s.outputs) + o;
      if (play.at(op.position, run)[at] == y % op.window * op.window + x % op.window) grad = play.at(op.grad_output, run)[at];
    }
    play.at(op.scratch, run)[i] = grad;
  });
  const Ref<float> rest{op.scratch.space, op.scratch.offset + static_cast<uint64_t>(size * play.batch.count) * sizeof(float)};
  conv_backward(queue, {s, op.input, op.weight, op.scratch, op.grad_weight, op.grad_bias, op.grad_input, rest}, play);
}

}  // namespace klopf::cuda
