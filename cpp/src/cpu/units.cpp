// What concerns few numbers: a batch's loss, drawing weights, selecting units, replacing them. One version for all levels.
#include "cpu/units.hpp"

#include <algorithm>
#include <cmath>

#include "rules/birth.hpp"
#include "rules/dormancy.hpp"
#include "rules/events.hpp"
#include "rules/growth.hpp"
#include "rules/initial.hpp"
#include "rules/reputation.hpp"
#include "rules/running.hpp"
#include "rules/silences.hpp"
#include "rules/wires.hpp"

namespace klopf::cpu {
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
    for (int i = 0; i < op.columns; ++i, ++weight)
      *weight = initial_weight(op.initial, seed, Stream::initial_weights, op.key, draw, row, op.columns, i);
    bias[row] = initial_bias(op.initial, seed, op.key, draw, row);
  }
}

void draw_wires(const DrawWires& op, const Play& play) {
  for (int u = 0; u < op.group.units; ++u)
    draw_wires_of(op.group, play, 0, u, *play.at(op.seed), Stream::wires, static_cast<uint64_t>(*play.at(op.draw)));
}

void cut_wires(const CutWires& op, const Play& play) {
  const float* wires = play.at(op.wires);
  float* values = play.at(op.values);
  for (int64_t i = 0; i < op.count; ++i) values[i] *= wires[i];
}

void cut_units(const CutUnits& op, const Play& play) {
  const Units& g = op.group;
  for (int c = 0; c < play.chunks; ++c)
    for (int u = 0; u < g.units; ++u) {
      if (play.at(op.counted)[u]) continue;
      std::fill_n(play.at(op.grad_weight, c) + static_cast<int64_t>(u) * g.fan_in, g.fan_in, 0.0f);
      play.at(op.grad_bias, c)[u] = 0;
    }
}

void unit_rewire(const UnitRewire& op, const Play& play) {
  for (int u = 0; u < op.group.units; ++u) rewire(op, play, 0, u);
}

void unit_reputation(const UnitReputation& op, const Play& play) {
  const int units = op.group.units, count = living(op.group, play, 0);
  const float* contribution = play.at(op.contribution);
  float *running_share = play.at(op.group.utility_trace), *reputation = play.at(op.group.utility);
  const float* variance = play.at(op.group.variance);
  double sum = 0, varies = 0;
  for (int u = 0; u < units; ++u) {
    sum += contribution[u];
    varies += variance[u];
  }
  const bool heard = sum > 0 && std::isfinite(sum);  // else there are no shares, as where a head has begun anew
  const double decay = *play.at(op.utility_decay), slow = *play.at(op.reputation_decay), dormancy = *play.at(op.dormancy);
  for (int u = 0; u < units; ++u) {
    if (heard)
      reputation_step(contribution[u] / sum, decay, reputation_decay_of(variance[u], varies, count, dormancy, decay, slow),
                      running_share[u], reputation[u]);
    const bool backbone = play.at(op.backbone)[u] =
        lives(op.group, play, 0, u) && of_backbone(reputation[u], count, *play.at(op.threshold));
    int32_t& promoted = play.at(op.group.promoted)[u];
    promoted = promoted_at(promoted, backbone, play.at(op.group.age)[u]);
  }
}

void unit_select(const UnitSelect& op, const Play& play) {
  const Units& g = op.group;
  const int32_t* age = play.at(g.age);
  const float* utility = play.at(g.utility);
  const uint8_t *kept = play.at(op.kept), *vacant = play.at(g.vacant);
  uint8_t* replaced = play.at(op.replaced);
  double* carry = play.at(op.carry);
  const double maturity = *play.at(op.maturity), rate = *play.at(op.replacement_rate);
  std::fill(replaced, replaced + g.units, uint8_t{0});

  const auto may_go = [&](int u) { return age[u] > maturity && !(kept && kept[u]) && !(vacant && vacant[u]); };
  int eligible = 0;
  for (int u = 0; u < g.units; ++u) eligible += may_go(u);
  const double expected = rate * (op.count_from == CountFrom::all && eligible > 0 ? living(g, play, 0) : eligible);
  int n;
  if (op.count_mode == CountMode::accumulate) {
    *carry += expected;
    n = static_cast<int>(std::min<double>(std::floor(*carry), eligible));
    *carry -= n;
  } else if (expected < 1) {
    n = uniform_at(*play.at(op.seed), Stream::replacement_count, static_cast<uint32_t>(g.key), static_cast<uint64_t>(*play.at(op.step)),
                   0) < expected;
  } else {
    n = static_cast<int>(std::min<double>(std::floor(expected), eligible));
  }
  n = std::min(n, eligible);
  for (; n > 0; --n) {  // lowest utility first; equal ones: lowest index; NaN last
    int worst = -1;
    for (int u = 0; u < g.units; ++u)
      if (may_go(u) && !replaced[u] &&
          (worst < 0 || utility[u] < utility[worst] || (std::isnan(utility[worst]) && !std::isnan(utility[u]))))
        worst = u;
    replaced[worst] = 1;
  }
}

void unit_grow(const UnitGrow& op, const Play& play) {
  const int place = error_stays(op, play, 0) ? place_to_grow(op, play, 0) : -1;
  if (place >= 0) play.at(op.replaced)[place] = 1;
}

void select_dormant(const SelectDormant& op, const Play& play) {
  const int units = op.group.units, count = living(op.group, play, 0);
  const float* activity = play.at(op.group.last_activity);
  uint8_t* replaced = play.at(op.replaced);
  double sum = 0;
  for (int u = 0; u < units; ++u) sum += activity[u];
  const bool now = every(*play.at(op.step), *play.at(op.period));
  for (int u = 0; u < units; ++u)
    replaced[u] = now && lives(op.group, play, 0, u) && redo_dormant(activity[u], sum, count, *play.at(op.threshold));
}

void select_silent(const SelectSilent& op, const Play& play) {
  const float* activity = play.at(op.group.last_activity);
  int32_t *silence = play.at(op.silence), *limit = play.at(op.limit), *gaps = play.at(op.gaps);
  const SilenceRates rates{*play.at(op.percentile), *play.at(op.threshold), *play.at(op.longest)};
  const bool due = every(*play.at(op.step), *play.at(op.period));
  for (int u = 0; u < op.group.units; ++u, gaps += silence_bins) {
    if (!lives(op.group, play, 0, u)) {
      play.at(op.replaced)[u] = 0;
      continue;
    }
    play.at(op.replaced)[u] = silence_step(activity[u] > 0, play.batch.total, silence[u], limit[u], gaps, rates);
    if (due) silence_limit(play.batch.total, limit[u], gaps, rates);
  }
}

void batch_norm_track(const BatchNormTrack& op, const Play& play) {
  const double rows = static_cast<double>(play.batch.total) * op.positions;
  const float *mean = play.at(op.mean), *variance = play.at(op.variance);
  float *running_mean = play.at(op.running_mean), *running_variance = play.at(op.running_variance);
  for (int c = 0; c < op.channels; ++c) {
    running_mean[c] = running(running_mean[c], mean[c], op.momentum);
    running_variance[c] = running(running_variance[c], static_cast<float>(variance[c] * rows / (rows - 1)), op.momentum);
  }
}

void log_events(const LogEvents& op, const Play& play) { log_events_of(op, play, 0); }

void unit_replace(const UnitReplace& op, const Play& play) {
  const Units& g = op.group;
  const uint8_t* replaced = play.at(op.replaced);
  const uint64_t seed = *play.at(op.seed), step = static_cast<uint64_t>(*play.at(op.step));
  float *incoming = play.at(g.incoming), *bias = play.at(g.bias), *outgoing = play.at(g.outgoing), *next_bias = play.at(g.next_bias);
  const float* weights = play.at(op.weights);
  const float* mean = play.at(g.mean_activity);
  float* origin = play.at(op.origin);
  const auto start_anew = [&](const float* weight) {
    for (const WeightState& state : op.state) begin_anew(state, play, 0, weight - weights);
    if (origin) origin[weight - weights] = *weight;
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
    if (g.wires.present()) draw_wires_of(g, play, 0, u, seed, Stream::new_wires, step);
    float* row = incoming + static_cast<int64_t>(u) * g.fan_in;
    for (int i = 0; i < g.fan_in; ++i) {
      row[i] = initial_weight(op.initial, seed, Stream::replacement, g.key, step, u, g.fan_in, i);
      start_anew(row + i);
    }
    bias[u] = 0;
    start_anew(bias + u);
    const auto start_row = [&](int row) {
      for (const WeightState& state : op.unit_state) begin_anew(state, play, 0, row);
    };
    start_row(op.first_row + u);
    for (const Companion& companion : op.companions)
      for (int i = u; i < companion.copies * g.units; i += g.units) {
        float& value = play.at(companion.values)[i];
        value = companion.birth;
        if (!companion.learned) continue;
        start_anew(&value);
        start_row(companion.first_row + i);
      }
    forget_unit(g, play, 0, u);
    if (g.vacant.present()) play.at(g.vacant)[u] = 0;
  }
}

void unit_vacate(const UnitVacate& op, const Play& play) {
  const Units& g = op.group;
  float *weights = play.at(op.weights), *origin = play.at(op.origin);
  const auto clear = [&](float* weight) {
    *weight = 0;
    if (origin) origin[weight - weights] = 0;
  };
  for (int u = 0; u < g.units; ++u) {
    if (lives(g, play, 0, u)) continue;
    for (int i = 0; i < g.fan_in; ++i) clear(play.at(g.incoming) + static_cast<int64_t>(u) * g.fan_in + i);
    clear(play.at(g.bias) + u);
    for (int i = 0; i < g.outputs * g.taps; ++i) clear(play.at(g.outgoing) + static_cast<int64_t>(i) * g.units + u);
    forget_unit(g, play, 0, u);
  }
}

}  // namespace klopf::cpu
