// What concerns few numbers: a batch's loss, drawing weights, selecting units, replacing them, counting steps.
#include "common.hpp"
#include "kernels.hpp"
#include "rules/birth.hpp"
#include "rules/dormancy.hpp"
#include "rules/events.hpp"
#include "rules/growth.hpp"
#include "rules/initial.hpp"
#include "rules/reputation.hpp"
#include "rules/silences.hpp"
#include "rules/wires.hpp"

namespace klopf::cuda {

void loss_total(const Queue& queue, const LossTotal& op, const Play& play) {
  for_each(queue, play, 1, [op, play] __device__(int run, int64_t) {
    int32_t& alive = *play.at(op.alive, run);
    if (double* loss = play.at(op.loss, run)) {
      const double value = *loss;
      if (!alive) *loss = nan(""), *play.at(op.correct, run) = -1;
      if (!(value - value == 0)) alive = 0;
    }
    *play.at(op.active, run) = alive;
  });
}

void draw_weights(const Queue& queue, const DrawWeights& op, const Play& play) {
  for_each(queue, play, static_cast<int64_t>(op.rows) * (op.columns + 1), [op, play] __device__(int run, int64_t i) {
    const int row = static_cast<int>(i / (op.columns + 1)), column = static_cast<int>(i % (op.columns + 1));
    const uint64_t seed = *play.at(op.seed, run), draw = static_cast<uint64_t>(*play.at(op.draw, run));
    if (column == op.columns) play.at(op.bias, run)[row] = initial_bias(op.initial, seed, op.key, draw, row);
    else
      play.at(op.weight, run)[static_cast<int64_t>(row) * op.columns + column] =
          initial_weight(op.initial, seed, Stream::initial_weights, op.key, draw, row, op.columns, column);
  });
}

void draw_wires(const Queue& queue, const DrawWires& op, const Play& play) {
  for_each(queue, play, op.group.units, [op, play] __device__(int run, int64_t u) {
    draw_wires_of(op.group, play, run, static_cast<int>(u), *play.at(op.seed, run), Stream::wires,
                  static_cast<uint64_t>(*play.at(op.draw, run)));
  });
}

void cut_wires(const Queue& queue, const CutWires& op, const Play& play) {
  for_each(queue, play, op.count, [op, play] __device__(int run, int64_t i) { play.at(op.values, run)[i] *= play.at(op.wires, run)[i]; });
}

void cut_units(const Queue& queue, const CutUnits& op, const Play& play) {
  const int row = op.group.fan_in + 1;
  for_each(queue, play, static_cast<int64_t>(op.group.units) * row, [op, play, row] __device__(int run, int64_t i) {
    const int64_t u = i / row, column = i % row;
    if (play.at(op.counted, run)[u]) return;
    if (column < op.group.fan_in) play.at(op.grad_weight, run)[u * op.group.fan_in + column] = 0;
    else play.at(op.grad_bias, run)[u] = 0;
  });
}

void unit_rewire(const Queue& queue, const UnitRewire& op, const Play& play) {
  for_each(queue, play, op.group.units, [op, play] __device__(int run, int64_t u) {
    if (learns(play, run)) rewire(op, play, run, static_cast<int>(u));
  });
}

namespace {

// One warp a run: all count, the first thread selects.
constexpr int select_threads = 32;
__global__ void unit_select_kernel(UnitSelect op, Play play) {
  const Units& g = op.group;
  const int run = static_cast<int>(blockIdx.z), thread = static_cast<int>(threadIdx.x);
  if (!learns(play, run)) return;
  const int32_t* age = play.at(g.age, run);
  const float* utility = play.at(g.utility, run);
  const uint8_t *kept = play.at(op.kept, run), *vacant = play.at(g.vacant, run);
  uint8_t* replaced = play.at(op.replaced, run);
  const double maturity = *play.at(op.maturity, run), rate = *play.at(op.replacement_rate, run);
  const auto may_go = [&](int u) { return age[u] > maturity && !(kept && kept[u]) && !(vacant && vacant[u]); };
  __shared__ int counts[select_threads];
  int count = 0;
  for (int u = thread; u < g.units; u += select_threads) {
    replaced[u] = 0;
    count += may_go(u);
  }
  counts[thread] = count;
  __syncthreads();
  if (thread > 0) return;
  int eligible = 0;
  for (int i = 0; i < select_threads; ++i) eligible += counts[i];
  const double expected = rate * (op.count_from == CountFrom::all && eligible > 0 ? living(g, play, run) : eligible);
  int n;
  if (op.count_mode == CountMode::accumulate) {
    double& carry = *play.at(op.carry, run);
    carry += expected;
    n = static_cast<int>(floor(carry) < eligible ? floor(carry) : eligible);
    carry -= n;
  } else if (expected < 1) {
    n = uniform_at(*play.at(op.seed, run), Stream::replacement_count, static_cast<uint32_t>(g.key),
                   static_cast<uint64_t>(*play.at(op.step, run)), 0) < expected;
  } else {
    n = static_cast<int>(floor(expected) < eligible ? floor(expected) : eligible);
  }
  if (n > eligible) n = eligible;
  for (; n > 0; --n) {  // lowest utility first; equal ones: lowest index; NaN last
    int worst = -1;
    for (int u = 0; u < g.units; ++u)
      if (may_go(u) && !replaced[u] &&
          (worst < 0 || utility[u] < utility[worst] || (utility[worst] != utility[worst] && utility[u] == utility[u])))
        worst = u;
    replaced[worst] = 1;
  }
}

// Outgoing weights: a thread takes an output, and goes through its taps and the units in order.
__device__ void start_anew(const UnitReplace& op, const Play& play, int run, const float* weight) {
  const int64_t i = weight - play.at(op.weights, run);
  for (const WeightState& state : op.state) begin_anew(state, play, run, i);
  if (float* origin = play.at(op.origin, run)) origin[i] = *weight;
}
__device__ void start_row(const UnitReplace& op, const Play& play, int run, int row) {
  for (const WeightState& state : op.unit_state) begin_anew(state, play, run, row);
}

}  // namespace

void unit_select(const Queue& queue, const UnitSelect& op, const Play& play) {
  launch(queue.stream, unit_select_kernel, dim3(1, 1, static_cast<unsigned>(play.runs)), dim3(select_threads), op, play);
}

namespace {

// One block a run, whose first thread sums up in order.
__device__ double sum_in_order(const float* values, int count) {
  __shared__ double sum;
  __syncthreads();  // who called before has read it
  if (threadIdx.x == 0) {
    double all = 0;
    for (int i = 0; i < count; ++i) all += values[i];
    sum = all;
  }
  __syncthreads();
  return sum;
}

__global__ void unit_reputation_kernel(UnitReputation op, Play play) {
  const int run = static_cast<int>(blockIdx.z), units = op.group.units;
  if (!learns(play, run)) return;
  const int count = living(op.group, play, run);
  const float* contribution = play.at(op.contribution, run);
  const float* variance = play.at(op.group.variance, run);
  const double sum = sum_in_order(contribution, units);
  const bool heard = sum > 0 && sum - sum == 0;
  const double varies = sum_in_order(variance, units);
  const double decay = *play.at(op.utility_decay, run), slow = *play.at(op.reputation_decay, run), dormancy = *play.at(op.dormancy, run);
  for (int u = static_cast<int>(threadIdx.x); u < units; u += block_threads) {
    float& reputation = play.at(op.group.utility, run)[u];
    if (heard)
      reputation_step(contribution[u] / sum, decay, reputation_decay_of(variance[u], varies, count, dormancy, decay, slow),
                      play.at(op.group.utility_trace, run)[u], reputation);
    const bool backbone = play.at(op.backbone, run)[u] =
        lives(op.group, play, run, u) && of_backbone(reputation, count, *play.at(op.threshold, run));
    int32_t& promoted = play.at(op.group.promoted, run)[u];
    promoted = promoted_at(promoted, backbone, play.at(op.group.age, run)[u]);
  }
}

__global__ void select_dormant_kernel(SelectDormant op, Play play) {
  const int run = static_cast<int>(blockIdx.z), units = op.group.units;
  if (!learns(play, run)) return;
  const int count = living(op.group, play, run);
  const float* activity = play.at(op.group.last_activity, run);
  const double sum = sum_in_order(activity, units);
  const bool now = every(*play.at(op.step, run), *play.at(op.period, run));
  for (int u = static_cast<int>(threadIdx.x); u < units; u += block_threads)
    play.at(op.replaced, run)[u] =
        now && lives(op.group, play, run, u) && redo_dormant(activity[u], sum, count, *play.at(op.threshold, run));
}

}  // namespace

void unit_reputation(const Queue& queue, const UnitReputation& op, const Play& play) {
  launch(queue.stream, unit_reputation_kernel, dim3(1, 1, static_cast<unsigned>(play.runs)), dim3(block_threads), op, play);
}

void select_dormant(const Queue& queue, const SelectDormant& op, const Play& play) {
  launch(queue.stream, select_dormant_kernel, dim3(1, 1, static_cast<unsigned>(play.runs)), dim3(block_threads), op, play);
}

void select_silent(const Queue& queue, const SelectSilent& op, const Play& play) {
  for_each(queue, play, op.group.units, [op, play] __device__(int run, int64_t u) {
    if (!learns(play, run)) return;
    if (!lives(op.group, play, run, static_cast<int>(u))) {
      play.at(op.replaced, run)[u] = 0;
      return;
    }
    const SilenceRates rates{*play.at(op.percentile, run), *play.at(op.threshold, run), *play.at(op.longest, run)};
    int32_t &limit = play.at(op.limit, run)[u], *gaps = play.at(op.gaps, run) + u * silence_bins;
    play.at(op.replaced, run)[u] =
        silence_step(play.at(op.group.last_activity, run)[u] > 0, play.batch.total, play.at(op.silence, run)[u], limit, gaps, rates);
    if (every(*play.at(op.step, run), *play.at(op.period, run))) silence_limit(play.batch.total, limit, gaps, rates);
  });
}

void log_events(const Queue& queue, const LogEvents& op, const Play& play) {
  for_each(queue, play, 1, [op, play] __device__(int run, int64_t) {
    if (learns(play, run)) log_events_of(op, play, run);
  });
}

void unit_replace(const Queue& queue, const UnitReplace& op, const Play& play) {
  const Units& g = op.group;
  for_each(queue, play, g.outputs, [op, play] __device__(int run, int64_t o) {
    if (!learns(play, run)) return;
    const Units& g = op.group;
    const uint8_t* replaced = play.at(op.replaced, run);
    const uint64_t* eight = reinterpret_cast<const uint64_t*>(replaced);  // units that are replaced are few
    for (int u = 0; u < g.units; ++u) {
      if (u % 8 == 0 && eight[u / 8] == 0) {
        u += 7;
        continue;
      }
      if (!replaced[u]) continue;
      for (int k = 0; k < g.taps; ++k) {
        float& w = play.at(g.outgoing, run)[(o * g.taps + k) * g.units + u];
        if (op.transfer_mean_to_bias) play.at(g.next_bias, run)[o] += w * play.at(g.mean_activity, run)[u];
        w = 0;
        start_anew(op, play, run, &w);
      }
    }
  });
  // What a unit owns, after the pass above has read its mean activity.
  for_each(queue, play, static_cast<int64_t>(g.units) * (g.fan_in + 1), [op, play] __device__(int run, int64_t i) {
    const Units& g = op.group;
    const int u = static_cast<int>(i / (g.fan_in + 1)), column = static_cast<int>(i % (g.fan_in + 1));
    if (!learns(play, run) || !play.at(op.replaced, run)[u]) return;
    if (column < g.fan_in) {
      float& w = play.at(g.incoming, run)[static_cast<int64_t>(u) * g.fan_in + column];
      w = initial_weight(op.initial, *play.at(op.seed, run), Stream::replacement, g.key, static_cast<uint64_t>(*play.at(op.step, run)), u,
                         g.fan_in, column);
      return start_anew(op, play, run, &w);
    }
    if (g.wires.present())
      draw_wires_of(g, play, run, u, *play.at(op.seed, run), Stream::new_wires, static_cast<uint64_t>(*play.at(op.step, run)));
    float& bias = play.at(g.bias, run)[u];
    bias = 0;
    start_anew(op, play, run, &bias);
    start_row(op, play, run, op.first_row + u);
    for (const Companion& companion : op.companions)
      for (int k = u; k < companion.copies * g.units; k += g.units) {
        float& value = play.at(companion.values, run)[k];
        value = companion.birth;
        if (!companion.learned) continue;
        start_anew(op, play, run, &value);
        start_row(op, play, run, companion.first_row + k);
      }
    forget_unit(g, play, run, u);
    if (g.vacant.present()) play.at(g.vacant, run)[u] = 0;
  });
}

void unit_grow(const Queue& queue, const UnitGrow& op, const Play& play) {
  for_each(queue, play, 1, [op, play] __device__(int run, int64_t) {
    if (!learns(play, run)) return;
    const int place = error_stays(op, play, run) ? place_to_grow(op, play, run) : -1;
    if (place >= 0) play.at(op.replaced, run)[place] = 1;
  });
}

void unit_vacate(const Queue& queue, const UnitVacate& op, const Play& play) {
  const Units& g = op.group;
  const int64_t incoming = g.fan_in + 1, all = incoming + static_cast<int64_t>(g.outputs) * g.taps;
  for_each(queue, play, all * g.units, [op, play, incoming] __device__(int run, int64_t i) {
    const Units& g = op.group;
    const int u = static_cast<int>(i % g.units);
    const int64_t which = i / g.units;
    if (!learns(play, run) || lives(g, play, run, u)) return;
    float* const weight = which == 0         ? play.at(g.bias, run) + u
                          : which < incoming ? play.at(g.incoming, run) + static_cast<int64_t>(u) * g.fan_in + which - 1
                                             : play.at(g.outgoing, run) + (which - incoming) * g.units + u;
    *weight = 0;
    if (float* origin = play.at(op.origin, run)) origin[weight - play.at(op.weights, run)] = 0;
    if (which == 0) forget_unit(g, play, run, u);
  });
}

void advance(const Queue& queue, const Advance& op, const Play& play) {
  for_each(queue, play, 1, [op, play] __device__(int run, int64_t) {
    if (learns(play, run)) ++*play.at(op.step, run);
  });
}

}  // namespace klopf::cuda
