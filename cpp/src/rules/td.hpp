#pragma once
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
