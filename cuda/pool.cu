// Max pooling on its own (where it does not follow a convolution and ReLU, or windows overlap). Channels last.
#include "common.hpp"
#include "kernels.hpp"

namespace klopf::cuda {

void max_pool_forward(const Queue& queue, const MaxPoolForward& op, const Play& play) {
  const PoolShape s = op.shape;
  const int64_t size = static_cast<int64_t>(s.out_height) * s.out_width * s.channels;
  for_each(queue, play, size * play.batch.count, [op, play, s, size] __device__(int run, int64_t i) {
    const int c = static_cast<int>(i % s.channels), place = static_cast<int>(i / s.channels % (s.out_height * s.out_width));
    const int y = place / s.out_width * s.stride, x = place % s.out_width * s.stride;
    const float* image = play.at(op.input, run) + i / size * s.height * s.width * s.channels + c;
    float best = 0;
    int position = 0;
    for (int w = 0; w < s.kernel * s.kernel; ++w) {
      const float v = image[(static_cast<int64_t>(y + w / s.kernel) * s.width + x + w % s.kernel) * s.channels];
      if (w == 0 || !(v <= best)) best = v, position = w;  // NaN wins
    }
    play.at(op.output, run)[i] = best;
    play.at(op.position, run)[i] = static_cast<uint8_t>(position);
  });
}

// Each input pixel asks the windows that it is in.
void max_pool_backward(const Queue& queue, const MaxPoolBackward& op, const Play& play) {
  const PoolShape s = op.shape;
  const int64_t size = static_cast<int64_t>(s.height) * s.width * s.channels;
  for_each(queue, play, size * play.batch.count, [op, play, s, size] __device__(int run, int64_t i) {
    const int c = static_cast<int>(i % s.channels), pixel = static_cast<int>(i / s.channels % (s.height * s.width));
    const int y = pixel / s.width, x = pixel % s.width;
    const int64_t first = i / size * s.out_height * s.out_width * s.channels + c;
    const float* grad_output = play.at(op.grad_output, run) + first;
    const uint8_t* position = play.at(op.position, run) + first;
    float sum = 0;
    for (int row = (y < s.kernel ? 0 : (y - s.kernel) / s.stride + 1); row < s.out_height && row * s.stride <= y; ++row)
      for (int column = (x < s.kernel ? 0 : (x - s.kernel) / s.stride + 1); column < s.out_width && column * s.stride <= x; ++column) {
        const int64_t at = (static_cast<int64_t>(row) * s.out_width + column) * s.channels;
        if (position[at] == (y - row * s.stride) * s.kernel + x - column * s.stride) sum += grad_output[at];
      }
    play.at(op.grad_input, run)[i] = sum;
  });
}

}  // namespace klopf::cuda
