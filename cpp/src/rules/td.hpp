#pragma once
#include <math.h>

#include "klopf/operations.hpp"
#include "klopf/philox.hpp"

// Temporal differences: errors, and choosing among values.
namespace klopf {

KLOPF_FN int best_of(const float* values, int count) {  // the first of equal ones
  int best = 0;
  for (int o = 1; o < count; ++o)
    if (values[o] > values[best]) best = o;
  return best;
}

// delta, and where the gradient of an output is wanted.
KLOPF_FN double td_error(const TdError& op, const Play& play, int run) {
  const float *now = play.at(op.output, run), *ahead = play.at(op.ahead, run);
  const int32_t action = op.judge == Judge::state ? 0 : *play.at(op.action, run);
  const int32_t next = op.judge == Judge::state         ? 0
                       : op.judge == Judge::best_action ? best_of(ahead, op.outputs)
                                                        : *play.at(op.next_action, run);
  float* grad = play.at(op.grad_output, run);
  for (int o = 0; o < op.outputs; ++o) grad[o] = o == action;
  const double discount = *play.at(op.discount, run);
  return *play.at(op.reward, run) + (discount == 0 ? 0 : discount * ahead[next]) - now[action];
}

// Sharifnassab et al. 2026: at most `clip` times the root of the mean square, which begins at 1; or that over its mean magnitude.
KLOPF_FN void safe_error(const SafeError& op, const Play& play, int run) {
  const double delta = *play.at(op.delta, run), decay = *play.at(op.decay, run);
  double &square = *play.at(op.square, run), &size = *play.at(op.size, run), &count = *play.at(op.count, run);
  square = decay * square + (1 - decay) * delta * delta;
  count = decay * count + (1 - decay);
  const double limit = *play.at(op.clip, run) * sqrt((square + (1 - count)) / count);
  double safe = delta > limit ? limit : delta < -limit ? -limit : delta;
  if (op.normalise) {
    size = decay * size + (1 - decay) * fabs(safe);
    const double usual = size / count;
    safe /= usual > 1e-12 ? usual : 1e-12;
  }
  *play.at(op.safe, run) = safe;
}

struct Choice {
  int action;
  bool greedy;
};
KLOPF_FN Choice choose(const float* values, int count, double epsilon, uint64_t seed, int64_t step) {
  const Random4 r = random4(seed, Stream::exploration, 0, static_cast<uint64_t>(step), 0);
  const int best = best_of(values, count);
  if (!(uniform(r.v[0]) < epsilon)) return {best, true};
  int any = static_cast<int>(uniform(r.v[1]) * static_cast<float>(count));
  if (any >= count) any = count - 1;
  return {any, any == best};
}

}  // namespace klopf
