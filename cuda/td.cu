// Temporal differences and eligibility traces.
#include "common.hpp"
#include "kernels.hpp"
#include "rules/policies.hpp"
#include "rules/td.hpp"

namespace klopf::cuda {

void td_error(const Queue& queue, const TdError& op, const Play& play) {
  for_each(queue, play, 1, [op, play] __device__(int run, int64_t) {
    if (!learns(play, run)) return;
    const double delta = klopf::td_error(op, play, run);
    *play.at(op.delta, run) = delta;
    if (!(delta - delta == 0)) *play.at(op.alive, run) = *play.at(op.active, run) = 0;
  });
}

void safe_error(const Queue& queue, const SafeError& op, const Play& play) {
  for_each(queue, play, 1, [op, play] __device__(int run, int64_t) {
    if (learns(play, run)) klopf::safe_error(op, play, run);
  });
}

void policy_gradient(const Queue& queue, const PolicyGradient& op, const Play& play) {
  for_each(queue, play, 1, [op, play] __device__(int run, int64_t) {
    const double delta = *play.at(op.delta, run), weight = *play.at(op.entropy_weight, run) * ((delta > 0) - (delta < 0));
    klopf::policy_gradient(op.distribution, play.at(op.output, run), op.outputs, play.at(op.action, run), weight,
                           play.at(op.grad_output, run));
  });
}

void choose_action(const Queue& queue, const ChooseAction& op, const Play& play) {
  for_each(queue, play, 1, [op, play] __device__(int run, int64_t) {
    const Choice found = choose(play.at(op.output, run), op.outputs, *play.at(op.epsilon, run), *play.at(op.seed, run), op.step);
    *play.at(op.action, run) = found.action;
    *play.at(op.greedy, run) = found.greedy;
  });
}

void update_traces(const Queue& queue, const UpdateTraces& op, const Play& play) {
  for_each(queue, play, op.count, [op, play] __device__(int run, int64_t i) {
    if (!learns(play, run)) return;
    float& e = play.at(op.traces, run)[i];
    e = static_cast<float>(*play.at(op.decay, run)) * e + play.at(op.grads, run)[i];
  });
}

void trace_gradient(const Queue& queue, const TraceGradient& op, const Play& play) {
  for_each(queue, play, op.count, [op, play] __device__(int run, int64_t i) {
    play.at(op.grads, run)[i] = -static_cast<float>(*play.at(op.delta, run)) * play.at(op.traces, run)[i];
  });
}

namespace {

// One block a row: a thread takes every 128th of its traces, and their sums are added in order.
constexpr int trace_threads = 128;
__global__ void linear_trace_kernel(LinearBackwardTrace op, Play play) {
  const int run = static_cast<int>(blockIdx.z), o = static_cast<int>(blockIdx.x), thread = static_cast<int>(threadIdx.x);
  if (!learns(play, run)) return;
  const int inputs = op.layer.shape.inputs;
  const float g = play.at(op.layer.grad_output, run)[o], decay = static_cast<float>(*play.at(op.decay, run));
  const float* x = play.at(op.layer.input, run);
  float* e = play.at(op.traces, run) + static_cast<int64_t>(o) * inputs;
  __shared__ float sums[trace_threads];
  float sum = 0;
  for (int i = thread; i < inputs; i += trace_threads) {
    e[i] = decay * e[i] + g * x[i];
    sum += fabsf(e[i]);
  }
  sums[thread] = sum;
  __syncthreads();
  if (thread > 0) return;
  float& bias = play.at(op.bias_traces, run)[o];
  bias = decay * bias + g;
  double all = fabsf(bias);
  for (int k = 0; k < trace_threads; ++k) all += sums[k];
  play.at(op.sums, run)[2 * o] = all;
}

}  // namespace

void linear_backward_trace(const Queue& queue, const LinearBackwardTrace& op, const Play& play) {
  const LinearShape s = op.layer.shape;
  if (op.layer.grad_input.present())
    for_each(queue, play, s.inputs, [op, play, s] __device__(int run, int64_t i) {
      const float *w = play.at(op.layer.weight, run) + i, *g = play.at(op.layer.grad_output, run);
      float grad = 0;
      for (int o = 0; o < s.outputs; ++o, w += s.inputs) grad = fmaf(g[o], *w, grad);
      play.at(op.layer.grad_input, run)[i] = grad;
    });
  launch(queue.stream, linear_trace_kernel, dim3(static_cast<unsigned>(s.outputs), 1, static_cast<unsigned>(play.runs)),
         dim3(trace_threads), op, play);
}

}  // namespace klopf::cuda
