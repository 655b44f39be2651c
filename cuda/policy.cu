// Policies: losses of actions, and drawing them.
#include "common.hpp"
#include "kernels.hpp"
#include "rules/policies.hpp"

namespace klopf::cuda {
namespace {

__device__ const float* target_of(const PolicyLoss& op, const Play& play, int run, int b) {
  const Batch& batch = play.batch;
  return batch.targets + (run * batch.targets_run + sample_at(play, run, b)) * policy_target_size(op.distribution, op.outputs);
}

// One block a run: a thread takes every 128th sample, and their sums are added in order.
constexpr int threads = 128;
__global__ void policy_loss_kernel(PolicyLoss op, Play play) {
  const int run = static_cast<int>(blockIdx.z), thread = static_cast<int>(threadIdx.x);
  const Batch& batch = play.batch;
  const double per_sample = 1.0 / batch.total, clip = *play.at(op.clip, run), entropy_weight = *play.at(op.entropy, run);
  const float* log_std = play.at(op.log_std, run);
  float* grad = play.at(op.grad_output, run);
  double* inverse_std = play.at(op.inverse_std, run);
  if (thread == 0) fill_inverse_std(op.distribution, log_std, op.outputs, inverse_std);
  __shared__ double sums[threads];
  __shared__ int32_t all_clipped[threads];
  double sum = 0;
  int32_t clipped = 0;
  __syncthreads();
  for (int b = thread; b < batch.count; b += threads) {
    const int64_t at = static_cast<int64_t>(b) * op.outputs;
    const Surrogate found = policy_sample(op, play.at(op.output, run) + at, log_std, inverse_std, target_of(op, play, run, b),
                                          grad ? grad + at : nullptr, clip, entropy_weight, per_sample);
    sum += found.loss;
    clipped += found.clipped;
    play.at(op.by_log_probability, run)[b] = found.by_log_probability * per_sample;
  }
  sums[thread] = sum;
  all_clipped[thread] = clipped;
  __syncthreads();
  if (thread == 0) {
    for (int i = 1; i < threads; ++i) sum += sums[i], clipped += all_clipped[i];
    *play.at(op.loss, run) = sum * per_sample;
    *play.at(op.clipped, run) = clipped;
  }
  if (!grad || op.distribution != Distribution::gaussian) return;
  for (int o = thread; o < op.outputs; o += threads) {
    double by_log_std = 0;
    for (int b = 0; b < batch.count; ++b) {
      const double z =
          z_score(target_of(op, play, run, b)[o], play.at(op.output, run)[static_cast<int64_t>(b) * op.outputs + o], inverse_std[o]);
      by_log_std += play.at(op.by_log_probability, run)[b] * (z * z - 1);
    }
    play.at(op.grad_log_std, run)[o] = static_cast<float>(by_log_std - entropy_weight * batch.count * per_sample);
  }
}

}  // namespace

void policy_loss(const Queue& queue, const PolicyLoss& op, const Play& play) {
  launch(queue.stream, policy_loss_kernel, dim3(1, 1, static_cast<unsigned>(play.runs)), dim3(threads), op, play);
}

void draw_action(const Queue& queue, const DrawAction& op, const Play& play) {
  for_each(queue, play, 1, [op, play] __device__(int run, int64_t) {
    draw(op, play.at(op.output, run), play.at(op.log_std, run), play.at(op.inverse_std, run), *play.at(op.seed, run),
         play.at(op.action, run));
  });
}

}  // namespace klopf::cuda
