// What concerns few numbers: a batch's loss, drawing weights, selecting units, replacing them. One version for all levels.
#include "cpu/units.hpp"

#include <algorithm>
#include <cmath>

#include "klopf/philox.hpp"

namespace klopf::cpu {
namespace {

// One unit's incoming weights, or one row of an initial matrix.
void draw_row(const InitialDistribution& initial, uint64_t seed, Stream stream, int place, uint64_t step, int row, int columns,
              float* weight) {
  const auto at = [&](int column, int use) {
    const uint64_t index =
        (static_cast<uint64_t>(row) * static_cast<uint64_t>(columns) + static_cast<uint64_t>(column)) * 2 + static_cast<uint64_t>(use);
    return uniform_at(seed, stream, static_cast<uint32_t>(place), step, static_cast<uint32_t>(index));
  };
  for (int i = 0; i < columns; ++i) weight[i] = (2 * at(i, 0) - 1) * initial.weight_bound;
  if (initial.kind != Initial::sparse) return;
  // Exactly ceil(0.9 columns) zeros (Elsayed et al. 2024): those with the lowest keys.
  const int zeros = (9 * columns + 9) / 10;
  for (int i = 0; i < columns; ++i) {
    const float key = at(i, 1);
    int rank = 0;
    for (int k = 0; k < columns; ++k) {
      const float other = at(k, 1);
      rank += other < key || (other == key && k < i);
    }
    if (rank < zeros) weight[i] = 0;
  }
}

}  // namespace

void loss_total(const LossTotal& op, const Play& play) {
  double loss = 0;
  int32_t correct = 0;
  for (int c = 0; c < play.chunks; ++c) {
    loss += *play.at(op.loss, c);
    correct += *play.at(op.correct, c);
  }
  *play.at(op.loss) = loss;
  *play.at(op.correct) = correct;
  if (!std::isfinite(loss)) *play.at(op.alive) = 0;
}

void draw_weights(const DrawWeights& op, const Play& play) {
  const uint64_t seed = *play.at(op.seed), draw = static_cast<uint64_t>(*play.at(op.draw));
  float *weight = play.at(op.weight), *bias = play.at(op.bias);
  for (int row = 0; row < op.rows; ++row) {
    draw_row(op.initial, seed, Stream::initial_weights, op.place, draw, row, op.columns, weight + static_cast<int64_t>(row) * op.columns);
    const float u =
        uniform_at(seed, Stream::initial_weights, static_cast<uint32_t>(op.place) + 0x800000u, draw, static_cast<uint32_t>(row));
    bias[row] = op.initial.bias_bound == 0 ? 0.0f : (2 * u - 1) * op.initial.bias_bound;
  }
}

void unit_select(const UnitSelect& op, const Play& play) {
  const Units& g = op.group;
  const int32_t* age = play.at(g.age);
  const float* utility = play.at(g.utility);
  uint8_t* replaced = play.at(op.replaced);
  double* carry = play.at(op.carry);
  const double maturity = *play.at(op.maturity), rate = *play.at(op.replacement_rate);
  std::fill(replaced, replaced + g.units, uint8_t{0});

  const int eligible = static_cast<int>(std::count_if(age, age + g.units, [&](int32_t a) { return a > maturity; }));
  const double expected = rate * (op.count_from == CountFrom::all && eligible > 0 ? g.units : eligible);
  int n;
  if (op.count_mode == CountMode::accumulate) {
    *carry += expected;
    n = static_cast<int>(std::min<double>(std::floor(*carry), eligible));
    *carry -= n;
  } else if (expected < 1) {
    n = uniform_at(*play.at(op.seed), Stream::replacement_count, static_cast<uint32_t>(g.place), static_cast<uint64_t>(*play.at(op.step)),
                   0) < expected;
  } else {
    n = static_cast<int>(std::min<double>(std::floor(expected), eligible));
  }
  n = std::min(n, eligible);
  for (; n > 0; --n) {  // lowest utility first; equal ones: lowest index; NaN last
    int worst = -1;
    for (int u = 0; u < g.units; ++u)
      if (age[u] > maturity && !replaced[u] &&
          (worst < 0 || utility[u] < utility[worst] || (std::isnan(utility[worst]) && !std::isnan(utility[u]))))
        worst = u;
    replaced[worst] = 1;
  }
}

void unit_replace(const UnitReplace& op, const Play& play) {
  const Units& g = op.group;
  const uint8_t* replaced = play.at(op.replaced);
  const uint64_t seed = *play.at(op.seed), step = static_cast<uint64_t>(*play.at(op.step));
  float *incoming = play.at(g.incoming), *bias = play.at(g.bias), *outgoing = play.at(g.outgoing), *next_bias = play.at(g.next_bias);
  const float* weights = play.at(op.weights);
  const float* mean = play.at(g.mean_activity);
  int32_t* age = play.at(g.age);
  const auto start_anew = [&](const float* weight) {
    for (const WeightState& state : op.state)
      if (state.values.present()) play.at(state.values)[weight - weights] = 0;
  };
  for (int u = 0; u < g.units; ++u) {
    if (!replaced[u]) continue;
    for (int o = 0; o < g.outputs; ++o)
      for (int k = 0; k < g.taps; ++k) {
        float& w = outgoing[(static_cast<int64_t>(o) * g.taps + k) * g.units + u];
        if (op.transfer_mean_to_bias) next_bias[o] += w * mean[u];
        w = 0;
        start_anew(&w);
      }
    float* row = incoming + static_cast<int64_t>(u) * g.fan_in;
    draw_row(op.initial, seed, Stream::replacement, g.place, step, u, g.fan_in, row);
    for (int i = 0; i < g.fan_in; ++i) start_anew(row + i);
    bias[u] = 0;
    start_anew(bias + u);
    age[u] = 0;
    for (const Ref<float> statistic : {g.mean_trace, g.mean_activity, g.utility_trace, g.utility}) play.at(statistic)[u] = 0;
  }
}

}  // namespace klopf::cpu
