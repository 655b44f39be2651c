// Loading a batch, activations, dropout, losses.
#include "common.hpp"
#include "divider.hpp"
#include "kernels.hpp"
#include "klopf/philox.hpp"
#include "rules/activations.hpp"
#include "rules/dropout.hpp"
#include "rules/losses.hpp"

namespace klopf::cuda {

void load_batch(const Queue& queue, const LoadBatch& op, const Play& play) {
  const int64_t size = static_cast<int64_t>(op.height) * op.width * op.channels, count = size * play.batch.count;
  expect_32_bits(count);
  const int pixels = op.height * op.width;
  const Divider by_channels(op.channels), by_pixels(pixels);
  for_each(queue, play, count, [op, play, size, pixels, by_channels, by_pixels] __device__(int run, int64_t at_output) {
    const Batch& batch = play.batch;
    const int i = static_cast<int>(at_output), pixel = by_channels.quotient(i), c = by_channels.remainder(i, pixel);
    const int place = by_pixels.quotient(pixel);
    const int64_t at = sample_at(play, run, place) * size + c * pixels + by_pixels.remainder(pixel, place);
    const char* x = static_cast<const char*>(batch.x) + run * batch.x_run;
    float value = batch.type == InputType::uint8 ? static_cast<float>(reinterpret_cast<const uint8_t*>(x)[at])
                                                 : reinterpret_cast<const float*>(x)[at];
    if (batch.scale || batch.offset) value = value * (batch.scale ? batch.scale[c] : 1.0f) + (batch.offset ? batch.offset[c] : 0.0f);
    play.at(op.output, run)[i] = value;
  });
}

void square(const Queue& queue, const Square& op, const Play& play) {
  for_each(queue, play, op.size * play.batch.count, [op, play] __device__(int run, int64_t i) {
    const float x = play.at(op.input, run)[i];
    play.at(op.output, run)[i] = x * x;
  });
}

void activation_forward(const Queue& queue, const ActivationForward& op, const Play& play) {
  for_each(queue, play, op.size * play.batch.count, [op, play] __device__(int run, int64_t i) {
    const float x = play.at(op.input, run)[i];
    float* y = play.at(op.output, run) + i;
    with_activation(op.kind, [&](auto f) { *y = f.value(x, op.slope); });
  });
}

void activation_backward(const Queue& queue, const ActivationBackward& op, const Play& play) {
  for_each(queue, play, op.size * play.batch.count, [op, play] __device__(int run, int64_t i) {
    const float y = play.at(op.output, run)[i], grad = play.at(op.grad_output, run)[i];
    float* grad_input = play.at(op.grad_input, run) + i;
    with_activation(op.kind, [&](auto f) { *grad_input = grad * f.slope(y, op.slope); });
  });
}

void dropout_forward(const Queue& queue, const DropoutForward& op, const Play& play) {
  // Four numbers, a quarter of a group of 64 apart, share a block of random ones.
  const int64_t each = (op.size + 63) / 64 * 16;
  for_each(queue, play, each * play.batch.count, [op, play, each] __device__(int run, int64_t i) {
    const int64_t b = i / each, k = i % each, first = k / 16 * 64 + k % 16;
    const Random4 r = random4(*play.at(op.seed, run), Stream::dropout, static_cast<uint32_t>(op.key),
                              dropout_step(*play.at(op.step, run), play.batch.place + b), static_cast<uint32_t>(k));
    const float scale = dropout_scale(op.probability);
    for (int j = 0; j < 4; ++j) {
      if (first + 16 * j >= op.size) return;
      const int64_t at = b * op.size + first + 16 * j;
      const bool keep = uniform(r.v[j]) >= op.probability;
      play.at(op.kept, run)[at] = keep;
      play.at(op.output, run)[at] = keep ? scale * play.at(op.input, run)[at] : 0.0f;
    }
  });
}

void dropout_backward(const Queue& queue, const DropoutBackward& op, const Play& play) {
  for_each(queue, play, op.size * play.batch.count, [op, play] __device__(int run, int64_t i) {
    play.at(op.grad_input, run)[i] = play.at(op.kept, run)[i] ? dropout_scale(op.probability) * play.at(op.grad_output, run)[i] : 0.0f;
  });
}

namespace {

// One block a run: a thread takes every 128th sample, and their sums are added in order.
constexpr int loss_threads = 128;
__global__ void loss_kernel(Loss op, Play play) {
  const int run = static_cast<int>(blockIdx.z), thread = static_cast<int>(threadIdx.x);
  const Batch& batch = play.batch;
  const double per_sample = 1.0 / batch.total;
  __shared__ double sums[loss_threads];
  __shared__ int32_t corrects[loss_threads];
  double sum = 0;
  int32_t correct = 0;
  for (int b = thread; b < batch.count; b += loss_threads) {
    const int64_t n = sample_at(play, run, b);
    const float* output = play.at(op.output, run) + static_cast<int64_t>(b) * op.outputs;
    float* grad = play.at(op.grad_output, run);
    if (grad) grad += static_cast<int64_t>(b) * op.outputs;
    if (op.kind == LossKind::cross_entropy) {
      const int32_t label = batch.labels[run * batch.targets_run + n];
      int best = 0;
      for (int o = 1; o < op.outputs; ++o) best = output[o] > output[best] ? o : best;
      correct += best == label;
      sum += cross_entropy(output, label, op.outputs, grad, per_sample);
    } else {
      sum += squared(output, batch.targets + (run * batch.targets_run + n) * op.outputs, op.outputs, grad, per_sample,
                     op.kind == LossKind::mse ? 1.0 / op.outputs : 0.5);
    }
  }
  sums[thread] = sum;
  corrects[thread] = correct;
  __syncthreads();
  if (thread > 0) return;
  for (int i = 1; i < loss_threads; ++i) sum += sums[i], correct += corrects[i];
  *play.at(op.loss, run) = sum * per_sample;
  *play.at(op.correct, run) = correct;
}

}  // namespace

void loss(const Queue& queue, const Loss& op, const Play& play) {
  launch(queue.stream, loss_kernel, dim3(1, 1, static_cast<unsigned>(play.runs)), dim3(loss_threads), op, play);
}

}  // namespace klopf::cuda
