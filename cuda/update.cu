// Passes over all weights: optimizers and perturbation. Gradients are those of the whole batch.
#include "common.hpp"
#include "kernels.hpp"
#include "rules/normal.hpp"
#include "rules/optimizers.hpp"

namespace klopf::cuda {
namespace {

__device__ inline void look(const Play& play, Ref<int32_t> alive, int run, float weight) {
  if (!(weight - weight == 0)) *play.at(alive, run) = 0;  // any thread may say so
}
// Where the i-th weight's decay leads to.
template <class Op>
__device__ inline float origin_of(const Op& op, const Play& play, int run, int64_t i) {
  const float* origin = play.at(op.origin, run);
  return origin ? origin[i] : 0.0f;
}

}  // namespace

namespace {

// One block a run: a thread sums up every 256th square, sixteen threads their share of these in order, the first their sums.
__global__ void clip_gradient_kernel(ClipGradient op, Play play) {
  const int run = static_cast<int>(blockIdx.z), thread = static_cast<int>(threadIdx.x);
  if (!learns(play, run)) return;
  float* g = play.at(op.grads, run);
  __shared__ double sums[block_threads], parts[16];
  __shared__ float scale;
  double sum = 0;
  for (int64_t i = thread; i < op.count; i += block_threads) sum += static_cast<double>(g[i]) * g[i];
  sums[thread] = sum;
  __syncthreads();
  if (thread < 16) {
    double part = 0;
    for (int i = thread; i < block_threads; i += 16) part += sums[i];
    parts[thread] = part;
  }
  __syncthreads();
  if (thread == 0) scale = clip_scale(*play.at(op.max_norm, run), parts);
  __syncthreads();
  if (scale < 1)
    for (int64_t i = thread; i < op.count; i += block_threads) g[i] *= scale;
}

}  // namespace

void clip_gradient(const Queue& queue, const ClipGradient& op, const Play& play) {
  launch(queue.stream, clip_gradient_kernel, dim3(1, 1, static_cast<unsigned>(play.runs)), dim3(block_threads), op, play);
}

void sgd_step(const Queue& queue, const SgdStep& op, const Play& play) {
  for_each(queue, play, op.count, [op, play] __device__(int run, int64_t i) {
    if (!learns(play, run)) return;
    float &w = play.at(op.weights, run)[i], *v = play.at(op.momentum, run);
    const float g = play.at(op.grads, run)[i], alpha = static_cast<float>(*play.at(op.step_size, run));
    const float lambda = static_cast<float>(*play.at(op.weight_decay, run)), w0 = origin_of(op, play, run, i);
    if (v) sgd_update(w, g, v[i], alpha, static_cast<float>(*play.at(op.momentum_rate, run)), lambda, w0);
    else sgd_update(w, g, alpha, lambda, w0);
    look(play, op.alive, run, w);
  });
}

namespace {

// Of a weight that took so many steps before this one.
__device__ int32_t age_of(int32_t steps, int32_t settled) { return steps < settled ? steps + 1 : settled; }

// Most weights have taken the same number of steps: the powers are computed once a block for its first one's, and else where needed.
__global__ void adam_kernel(AdamStep op, Play play) {
  const int run = static_cast<int>(blockIdx.z);
  if (!learns(play, run)) return;
  const double beta1 = *play.at(op.beta1, run), beta2 = *play.at(op.beta2, run), alpha = *play.at(op.step_size, run);
  const int64_t i = thread_index();
  int32_t* steps = play.at(op.steps, run);
  const int32_t settled = adam_settled(beta1, beta2);
  __shared__ int32_t first_step;
  __shared__ AdamCorrection first_correction;
  if (threadIdx.x == 0) {
    first_step = age_of(steps[i], settled);
    first_correction = adam_correction(alpha, beta1, beta2, first_step, op.epsilon_raw);
  }
  __syncthreads();
  if (i >= op.count) return;
  const AdamRates rates = adam_rates(alpha, beta1, beta2, *play.at(op.epsilon, run), *play.at(op.weight_decay, run), op.decoupled);
  const int32_t t = age_of(steps[i]++, settled);
  float& w = play.at(op.weights, run)[i];
  adam_update(w, play.at(op.grads, run)[i], play.at(op.first, run)[i], play.at(op.second, run)[i],
              t == first_step ? first_correction : adam_correction(alpha, beta1, beta2, t, op.epsilon_raw), rates,
              origin_of(op, play, run, i));
  look(play, op.alive, run, w);
}

}  // namespace

void adam_step(const Queue& queue, const AdamStep& op, const Play& play) {
  launch(queue.stream, adam_kernel, dim3(blocks_for(op.count), 1, static_cast<unsigned>(play.runs)), dim3(block_threads), op, play);
}

namespace {

// Four weights, a quarter of a group of 64 apart, share a block of random numbers: visit(weight, normal number) for those of the k-th.
template <class Op, class Visit>
__device__ void for_normals(const Op& op, const Play& play, int run, Stream stream, int64_t k, Visit visit) {
  const Random4 r = random4(*play.at(op.seed, run), stream, static_cast<uint32_t>(op.key), static_cast<uint64_t>(*play.at(op.step, run)),
                            static_cast<uint32_t>(k));
  const Normal2 a = normal2(r.v[0], r.v[1]), b = normal2(r.v[2], r.v[3]);
  const float normal[4] = {a.first, a.second, b.first, b.second};
  const int64_t first = k / 16 * 64 + k % 16;
  for (int j = 0; j < 4; ++j)
    if (first + 16 * j < op.count) visit(first + 16 * j, normal[j]);
}
int64_t blocks_of_normals(int64_t count) { return (count + 63) / 64 * 16; }

// One block a run.
__global__ void largest_utility_kernel(UpgdStep op, Play play) {
  const int run = static_cast<int>(blockIdx.z), thread = static_cast<int>(threadIdx.x);
  if (!learns(play, run)) return;
  const float* u = play.at(op.utility, run);
  const int32_t* steps = play.at(op.steps, run);
  const double beta = *play.at(op.utility_decay, run);
  const int32_t settled = adam_settled(0, beta);
  __shared__ float largest[block_threads];
  float own = 0;
  for (int64_t i = thread; i < op.count; i += block_threads) {
    const float seen = op.maximum_corrected ? u[i] * upgd_correction(beta, age_of(steps[i], settled)) : u[i];
    own = seen > own ? seen : own;
  }
  largest[thread] = own;
  __syncthreads();
  if (thread > 0) return;
  for (int k = 1; k < block_threads; ++k) own = largest[k] > own ? largest[k] : own;
  *play.at(op.maximum, run) = own;
}

__device__ UpgdRates upgd_rates_of(const UpgdStep& op, const Play& play, int run) {
  return upgd_rates(*play.at(op.step_size, run), *play.at(op.utility_decay, run), *play.at(op.weight_decay, run), *play.at(op.noise, run),
                    *play.at(op.factor, run));
}

}  // namespace

void upgd_step(const Queue& queue, const UpgdStep& op, const Play& play) {
  for_each(queue, play, op.count, [op, play] __device__(int run, int64_t i) {
    if (learns(play, run))
      upgd_utility(play.at(op.utility, run)[i], play.at(op.weights, run)[i], play.at(op.grads, run)[i], upgd_rates_of(op, play, run));
  });
  launch(queue.stream, largest_utility_kernel, dim3(1, 1, static_cast<unsigned>(play.runs)), dim3(block_threads), op, play);
  for_each(queue, play, blocks_of_normals(op.count), [op, play] __device__(int run, int64_t k) {
    if (!learns(play, run)) return;
    const UpgdRates rates = upgd_rates_of(op, play, run);
    const double beta = *play.at(op.utility_decay, run);
    const int32_t settled = adam_settled(0, beta);
    for_normals(op, play, run, Stream::gradient_noise, k, [&](int64_t i, float xi) {
      float& w = play.at(op.weights, run)[i];
      const float correction = upgd_correction(beta, age_of(play.at(op.steps, run)[i]++, settled));
      upgd_update(w, play.at(op.grads, run)[i], play.at(op.utility, run)[i] * correction, *play.at(op.maximum, run), xi, rates);
      look(play, op.alive, run, w);
    });
  });
}

void perturb(const Queue& queue, const Perturb& op, const Play& play) {
  for_each(queue, play, blocks_of_normals(op.count), [op, play] __device__(int run, int64_t k) {
    if (!learns(play, run)) return;
    const float noise = static_cast<float>(*play.at(op.noise, run));
    for_normals(op, play, run, Stream::perturbation, k, [&](int64_t i, float xi) { play.at(op.weights, run)[i] += noise * xi; });
  });
}

// A thread takes a column of the weights: its part of the input's gradient from the old weights, then their update.
void linear_backward_sgd(const Queue& queue, const LinearBackwardSgd& op, const Play& play) {
  const LinearShape s = op.layer.shape;
  for_each(queue, play, s.inputs + s.outputs, [op, play, s] __device__(int run, int64_t i) {
    const float* delta = play.at(op.layer.grad_output, run);
    const float alpha = static_cast<float>(*play.at(op.sgd.step_size, run)), mu = static_cast<float>(*play.at(op.sgd.momentum_rate, run));
    const float lambda = static_cast<float>(*play.at(op.sgd.weight_decay, run));
    const bool update = learns(play, run);
    const auto step = [&](float& w, float g, float* v) {
      if (!update) return;
      if (v) sgd_update(w, g, *v, alpha, mu, lambda);
      else sgd_update(w, g, alpha, lambda);
      look(play, op.sgd.alive, run, w);
    };
    if (i >= s.inputs) {
      const int64_t o = i - s.inputs;
      float* v = play.at(op.bias_momentum, run);
      return step(play.at(op.bias, run)[o], delta[o], v ? v + o : nullptr);
    }
    const float x = play.at(op.layer.input, run)[i];
    float *w = play.at(op.layer.weight, run) + i, *v = play.at(op.momentum, run), grad = 0;
    for (int o = 0; o < s.outputs; ++o, w += s.inputs) {
      grad = fmaf(delta[o], *w, grad);
      step(*w, delta[o] * x, v ? v + static_cast<int64_t>(o) * s.inputs + i : nullptr);
    }
    if (op.layer.grad_input.present()) play.at(op.layer.grad_input, run)[i] = grad;
  });
}

}  // namespace klopf::cuda
