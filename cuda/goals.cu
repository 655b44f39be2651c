// Goals of units' own.
#include "common.hpp"
#include "kernels.hpp"
#include "rules/goals.hpp"
#include "sums.hpp"

namespace klopf::cuda {
namespace {

// One block a unit. Scratch: of each unit its change [fan_in] and pulls [partners].
__global__ void goal_correlation_kernel(GoalCorrelation op, Play play) {
  const Units& g = op.units.group;
  const int run = static_cast<int>(blockIdx.z), u = static_cast<int>(blockIdx.x), thread = static_cast<int>(threadIdx.x);
  if (!learns(play, run)) return;
  const int units = g.units, inputs = g.fan_in, partners = op.partners, batch = play.batch.count;
  if (!follows(op.units, play, run, u)) return;
  float* correlation = play.at(op.correlation, run) + static_cast<int64_t>(u) * partners;
  const float *mean = play.at(g.mean_activity, run), *variance = play.at(g.variance, run), *y = play.at(g.activity, run);
  const float *x = play.at(op.input, run), *errors = play.at(op.grad_output, run);
  const uint8_t* successors = play.at(op.successors, run);
  const float* wires = play.at(g.wires, run);
  const double decay = *play.at(op.correlation_decay, run), step_size = *play.at(op.units.step_size, run);
  const float total = static_cast<float>(batch), scale = op.listened ? -total : 1.0f;
  float* change = play.at(op.scratch, run) + static_cast<int64_t>(u) * (inputs + partners);
  float* pulls = change + inputs;
  const auto normal = [&](int b, int unit) { return normalised(y[static_cast<int64_t>(b) * units + unit], mean[unit], variance[unit]); };
  const auto signal = [&](int b, int k) { return op.listened ? errors[static_cast<int64_t>(b) * partners + k] : normal(b, k); };
  float part = 0;
  for (int k = thread; k < partners; k += goal_threads) {
    float sum = 0;
    for (int b = 0; b < batch; ++b) sum += signal(b, k) * normal(b, u);
    correlation[k] = static_cast<float>(decay * correlation[k] + (1 - decay) * (sum * scale / total));
    pulls[k] = pull(op, correlation[k], successors, u, k);
    part += pulls[k] * correlation[k];
  }
  const float against = sum_of_block(part);
  if (!varies(variance[u], mean[u])) return;
  float* w = play.at(g.incoming, run) + static_cast<int64_t>(u) * inputs;
  float& bias = play.at(g.bias, run)[u];
  part = thread == 0 ? bias * bias : 0;
  for (int i = thread; i < inputs; i += goal_threads) {
    change[i] = 0;
    part += w[i] * w[i];
  }
  const float before = sum_of_block(part);
  float bias_change = 0;
  for (int b = 0; b < batch; ++b) {
    const float slope = slope_of(op, y[static_cast<int64_t>(b) * units + u]);
    if (slope == 0) continue;  // so for the whole block
    part = 0;
    for (int k = thread; k < partners; k += goal_threads) part += pulls[k] * signal(b, k);
    const float along = (scale * sum_of_block(part) - against * normal(b, u)) * slope;
    for (int i = thread; i < inputs; i += goal_threads) change[i] += along * x[static_cast<int64_t>(b) * inputs + i];
    bias_change += along;
  }
  const float step = static_cast<float>(step_size / (sqrtf(variance[u]) * total));
  const float moved = bias + step * bias_change;
  part = thread == 0 ? moved * moved : 0;
  for (int i = thread; i < inputs; i += goal_threads) {
    w[i] += step * change[i] * wire(wires, static_cast<int64_t>(u) * inputs + i);
    part += w[i] * w[i];
  }
  const float after = sum_of_block(part), back = after > 0 ? sqrtf(before / after) : 1.0f;
  for (int i = thread; i < inputs; i += goal_threads) w[i] *= back;
  if (thread == 0) bias = moved * back;
}

}  // namespace

void unit_firing(const Queue& queue, const UnitFiring& op, const Play& play) {
  for_each(queue, play, op.group.units, [op, play] __device__(int run, int64_t u) {
    const Units& g = op.group;
    const float* y = play.at(g.activity, run) + u;
    float count = 0;
    for (int b = 0; b < play.batch.count; ++b, y += static_cast<int64_t>(g.positions) * g.units) {
      bool active = false;
      for (int s = 0; s < g.positions && !active; ++s) active = fabsf(y[static_cast<int64_t>(s) * g.units]) > active_level(g);
      count += active ? 1.0f : 0.0f;
    }
    play.at(op.counts, run)[u] = count;
  });
}

void goal_active(const Queue& queue, const GoalActive& op, const Play& play) {
  for_each(queue, play, op.units.group.units, [op, play] __device__(int run, int64_t i) {
    const int u = static_cast<int>(i);
    const Units& g = op.units.group;
    if (!learns(play, run)) return;
    float& rate = play.at(op.rate, run)[u];
    if (begins_anew(op.units, play, run, u)) forget(op.units, play, run, u, &rate, 1);
    if (!follows(op.units, play, run, u)) return;
    const float now = play.at(op.counts, run)[u] / static_cast<float>(play.batch.count);
    play.at(g.bias, run)[u] += active_step(now, *play.at(op.share, run), *play.at(op.units.step_size, run), *play.at(op.units.decay, run),
                                           play.at(g.age, run)[u], rate);
  });
}

void goal_variance(const Queue& queue, const GoalVariance& op, const Play& play) {
  const Units& g = op.units.group;
  for_each(queue, play, static_cast<int64_t>(g.units) * (g.fan_in + 1), [op, play] __device__(int run, int64_t i) {
    const Units& g = op.units.group;
    const int u = static_cast<int>(i / (g.fan_in + 1)), column = static_cast<int>(i % (g.fan_in + 1));
    if (!learns(play, run)) return;
    if (column == 0 && begins_anew(op.units, play, run, u)) forget(op.units, play, run, u, nullptr, 0);
    if (!follows(op.units, play, run, u)) return;
    float& w = column == g.fan_in ? play.at(g.bias, run)[u] : play.at(g.incoming, run)[static_cast<int64_t>(u) * g.fan_in + column];
    w *= towards_unit_variance(play.at(g.variance, run)[u], play.at(g.mean_activity, run)[u], *play.at(op.units.step_size, run));
  });
}

void goal_correlation(const Queue& queue, const GoalCorrelation& op, const Play& play) {
  launch(queue.stream, goal_correlation_kernel, dim3(static_cast<unsigned>(op.units.group.units), 1, static_cast<unsigned>(play.runs)),
         dim3(goal_threads), op, play);
  if (!op.units.replaced.present()) return;
  for_each(queue, play, op.units.group.units, [op, play] __device__(int run, int64_t u) {  // last, as peers look at it
    if (learns(play, run) && begins_anew(op.units, play, run, static_cast<int>(u)))
      forget(op.units, play, run, static_cast<int>(u), play.at(op.correlation, run) + u * op.partners, op.partners);
  });
}
std::size_t goal_correlation_scratch(const GoalCorrelation& op) {
  return static_cast<std::size_t>(op.units.group.units) * static_cast<std::size_t>(op.units.group.fan_in + op.partners);
}

}  // namespace klopf::cuda
