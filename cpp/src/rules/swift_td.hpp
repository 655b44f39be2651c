#pragma once
#include "rules/step_sizes.hpp"

// SwiftTD (Javed, Sharifnassab and Sutton 2024): true online TD(lambda) of a linear network, with step sizes by IDBD, a bound on the rate
// of learning, and step sizes that decay where it was above. Written from one look at a sample to the next: what the published form does
// last of a step, it does first of the next.
namespace klopf {

struct SwiftArrays {
  float *w, *b, *z, *p, *z_bar, *change, *h, *h_before;
  const float* x;  // gradient of the output
  float initial, meta, bound, log_decay, fade, delta;
  bool begins;  // an episode: nothing before it is to be blamed
  KLOPF_MEMBER_FN float alpha(int64_t i) const { return initial * exp_of(b[i]); }
};
KLOPF_FN SwiftArrays swift_arrays(const SwiftStep& op, const Play& play, int run) {
  const StepSizes& all = op.all;
  const auto number = [&](Ref<double> ref) { return static_cast<float>(*play.at(ref, run)); };
  return {play.at(all.weights, run),
          play.at(all.log_step, run),
          play.at(all.grads, run),
          play.at(op.meta_trace, run),
          play.at(op.step_trace, run),
          play.at(op.change, run),
          play.at(all.trace, run),
          play.at(op.before, run),
          play.at(all.now, run),
          number(all.step_size),
          number(all.meta_step_size),
          number(all.decay),
          static_cast<float>(log(*play.at(op.step_decay, run))),
          number(op.fade),
          number(all.delta),
          *play.at(op.cut, run) != 0};
}

struct SwiftSums {
  double rate, along, change;  // sum alpha x^2; z x; and of what the value changed by with the last step
};
KLOPF_FN void swift_measure(const SwiftArrays& a, int64_t i, SwiftSums& sums) {
  const float x = a.x[i];
  a.z[i] *= a.fade, a.p[i] *= a.fade, a.z_bar[i] *= a.fade;
  sums.rate += a.alpha(i) * x * x;
  sums.along += a.z[i] * x;
  if (a.begins) a.change[i] = 0, a.h_before[i] = a.h[i];
  sums.change += a.change[i] * x;
}
KLOPF_FN void swift_apply(const SwiftArrays& a, int64_t i, const SwiftSums& sums) {
  const float x = a.x[i], rate = static_cast<float>(sums.rate), left = 1 - static_cast<float>(sums.along);
  const float change = static_cast<float>(sums.change), delta = a.delta + change;  // from the value before the last step
  const bool above = rate > a.bound;
  const float step = (above ? a.bound / rate : 1.0f) * a.alpha(i) * x;
  a.z[i] += step * left;
  a.p[i] += a.h_before[i] * x;
  a.z_bar[i] += step * (left - a.z_bar[i] * x);
  float h = a.h[i] - a.h_before[i] * x * (a.z[i] - step) - a.h[i] * step * x;
  if (above) {
    h = a.h[i] = a.z_bar[i] = 0;
    a.b[i] += a.log_decay * x * x;
  }
  a.change[i] = delta * a.z[i] - step * change;
  a.w[i] += a.change[i];
  a.b[i] += a.meta / (a.alpha(i) + 1e-8f) * a.delta * a.p[i];
  if (!(a.alpha(i) <= a.bound)) a.b[i] = static_cast<float>(log(a.bound / a.initial));
  a.h_before[i] = a.h[i];
  a.h[i] = h + delta * a.z_bar[i] - step * change;
}

}  // namespace klopf
