// The goal to be listened to, by perturbation.
#include "common.hpp"
#include "kernels.hpp"
#include "rules/normal.hpp"
#include "rules/perturbation.hpp"
#include "sums.hpp"

namespace klopf::cuda {
namespace {

// One block a unit, whose threads share its outgoing weights. All rewards are there before anybody compares.
__global__ void reward_kernel(GoalPerturbation op, Play play) {
  const Units& g = op.units.group;
  const int run = static_cast<int>(blockIdx.z), u = static_cast<int>(blockIdx.x);
  if (!learns(play, run)) return;
  const float *now = play.at(g.outgoing, run) + u, *before = play.at(op.before, run) + u;
  float growth = 0;
  for (int i = static_cast<int>(threadIdx.x); i < g.outputs * g.taps; i += goal_threads) {
    const int64_t at = static_cast<int64_t>(i) * g.units;
    if (counts(op, play, run, i / g.taps)) growth += fabsf(now[at]) - fabsf(before[at]);
  }
  growth = sum_of_block(growth);
  if (threadIdx.x == 0) play.at(op.reward, run)[u] = reward_of(growth, play.at(g.variance, run)[u], play.at(g.mean_activity, run)[u]);
}

// One block a unit.
__global__ void follow_reward_kernel(GoalPerturbation op, Play play) {
  const Units& g = op.units.group;
  const int run = static_cast<int>(blockIdx.z), u = static_cast<int>(blockIdx.x), thread = static_cast<int>(threadIdx.x);
  if (!learns(play, run)) return;
  const int inputs = g.fan_in, row = inputs + 1;
  const int64_t first = static_cast<int64_t>(u) * row;
  const float* reward = play.at(op.reward, run);
  float *w = play.at(g.incoming, run) + static_cast<int64_t>(u) * inputs, *bias = play.at(g.bias, run) + u;
  float *xi = play.at(op.perturbation, run) + first, *trace = play.at(op.trace, run) + first;
  const float* wires = g.wires.present() ? play.at(g.wires, run) + static_cast<int64_t>(u) * inputs : nullptr;
  const auto weight = [&](int i) -> float& { return i < inputs ? w[i] : *bias; };
  const bool anew = begins_anew(op.units, play, run, u), does = follows(op.units, play, run, u);
  const float before = play.at(op.scale, run)[u];
  __shared__ float scale, along;
  float part = 0;
  for (int i = thread; i < row; i += goal_threads) {
    float& now = weight(i);
    if (i < inputs && wire(wires, i) == 0) xi[i] = trace[i] = 0;  // a wire that was dropped has left its perturbation
    if (!anew) now -= before * xi[i];
    part += now * now;
    if (!does) xi[i] = trace[i] = 0;
  }
  const float squares = sum_of_block(part);
  if (!does) {
    if (thread > 0) return;
    if (anew) forget_perturbation(op, play, run, u);
    play.at(op.scale, run)[u] = 0;
    return;
  }
  float sum = 0, followers = 0;
  for (int k = thread; k < g.units; k += goal_threads)
    if (follows(op.units, play, run, k)) sum += reward[k], followers += 1;
  sum = sum_of_block(sum);
  followers = sum_of_block(followers);
  if (thread == 0) {
    const float usual = usual_of_peers(sum, static_cast<int>(followers)), size = size_of_weight(squares, inputs);
    const float more = advantage(reward[u] - usual, *play.at(op.baseline_decay, run), play.at(op.compared, run)[u],
                                 play.at(op.baseline, run)[u], play.at(op.square, run)[u]);
    along = static_cast<float>(*play.at(op.units.step_size, run) * more * size);
    scale = play.at(op.scale, run)[u] = static_cast<float>(*play.at(op.noise, run)) * size;
  }
  __syncthreads();
  const float trace_decay = static_cast<float>(*play.at(op.trace_decay, run));
  part = 0;
  for (int i = thread; i < row; i += goal_threads) {
    float& now = weight(i);
    trace[i] = trace_decay * trace[i] + xi[i];
    now += along * trace[i];
    part += now * now;
  }
  const float after = sum_of_block(part), back = after > 0 ? sqrtf(squares / after) : 1.0f;
  const bool drawn = draws(op, play, run, before);
  const uint64_t seed = *play.at(op.seed, run), step = static_cast<uint64_t>(*play.at(op.step, run));
  for (int i = thread; i < row; i += goal_threads) {
    if (drawn)
      xi[i] = normal_at(seed, Stream::goal_perturbation, static_cast<uint32_t>(g.key), step, static_cast<uint32_t>(first + i)) *
              (i < inputs ? wire(wires, i) : 1.0f);
    weight(i) = weight(i) * back + scale * xi[i];
  }
}

}  // namespace

void remember_outgoing(const Queue& queue, const RememberOutgoing& op, const Play& play) {
  const Units& g = op.group;
  for_each(queue, play, static_cast<int64_t>(g.outputs) * g.taps * g.units,
           [op, play] __device__(int run, int64_t i) { play.at(op.before, run)[i] = play.at(op.group.outgoing, run)[i]; });
}

void goal_perturbation(const Queue& queue, const GoalPerturbation& op, const Play& play) {
  const dim3 grid(static_cast<unsigned>(op.units.group.units), 1, static_cast<unsigned>(play.runs));
  launch(queue.stream, reward_kernel, grid, dim3(goal_threads), op, play);
  launch(queue.stream, follow_reward_kernel, grid, dim3(goal_threads), op, play);
}

}  // namespace klopf::cuda
