#pragma once
#include <math.h>
#include <string.h>

#include "klopf/operations.hpp"

// Rules by which step sizes follow from what is learned. g is a weight's gradient, c its curvature (the Gauss-Newton diagonal), h its
// trace of recent changes. A step size is held as b, the logarithm of its ratio to the initial one: zero is where it begins.
namespace klopf {

// e^x for finite results to 2e-7, from additions, multiplications and bits alone: the same wherever these are.
KLOPF_FN float exp_of(float x) {
  const float limited = x < -87.0f ? -87.0f : x > 88.37f ? 88.37f : x;
  const float halves = limited * 1.44269504f, up = halves + 12582912.0f, whole = up - 12582912.0f;  // rounded to a whole number
  const float r = (limited - whole * 0.693359375f) + whole * 2.12194440e-4f;
  const float series = 1 + r * (1 + r * (0.5f + r * (0.16666667f + r * (0.041666667f + r * (8.3333333e-3f + r * 1.3888889e-3f)))));
  const int32_t bits = (static_cast<int32_t>(whole) + 127) << 23;
  float power;
  memcpy(&power, &bits, 4);
  return x == x ? series * power : x;
}

// w <- (1 - alpha lambda) w - alpha g; h <- keep h - alpha g
KLOPF_FN void follow(float& w, float& h, float g, float alpha, float keep, float decay) {
  const float change = alpha * g;
  w = w - alpha * decay * w - change;
  h = keep * h - change;
}
KLOPF_FN float kept(float alpha, float c) {  // [1 - alpha c]^+
  const float keep = 1 - alpha * c;
  return keep > 0 ? keep : 0.0f;
}

KLOPF_FN float within(float b, float lowest, float highest) { return b < lowest ? lowest : b > highest ? highest : b; }

// Sutton 1992: beta <- beta - theta g h.  `m` is -g h, a weight's, or the sum over an owner's.
KLOPF_FN float idbd(float b, float m, float theta) { return b + theta * m; }

// Mahmood et al. 2012: v <- max(|m|, v + alpha [c]^+ (|m| - v) / tau); alpha <- alpha e^(mu m / v). c is negative only along traces.
struct AutostepRates {
  float initial, meta, rate;  // alpha_0, mu, 1 / tau
};
KLOPF_FN AutostepRates autostep_rates(const StepSizes& all, const Play& play, int run) {
  if (all.rule != StepRule::autostep) return {};
  return {static_cast<float>(*play.at(all.step_size, run)), static_cast<float>(*play.at(all.meta_step_size, run)),
          static_cast<float>(1 / *play.at(all.decay, run))};
}
KLOPF_FN void autostep(float& b, float& v, float m, float c, AutostepRates r) {
  const float size = m < 0 ? -m : m, slow = v + r.rate * (r.initial * exp_of(b) * (c > 0 ? c : 0.0f)) * (size - v);
  v = size > slow ? size : slow;
  b = b + r.meta * m / (v > 0 ? v : 1.0f);  // where v is 0, so is m
}
// log M of M = max(sum alpha c, 1), by which step sizes are divided.
KLOPF_FN float autostep_excess(double sum) { return sum > 1 ? static_cast<float>(log(sum)) : 0.0f; }

// Elsayed et al. 2024: alpha where alpha kappa |delta| |z| would overshoot is divided by that. `reach` is max(|delta|, 1) |z|, z what the
// weights of an owner move along.
KLOPF_FN double obgd_step(double alpha, double kappa, double reach) {
  const double excess = reach * alpha * kappa;
  return excess > 1 ? alpha / excess : alpha;
}
// AdaptiveObGD moves along g over the root of its mean square. v and n are the running sums of squares and of what they count for.
KLOPF_FN void mean_square(float g, float& v, float& n, float decay) {
  v = decay * v + (1 - decay) * (g * g);
  n = decay * n + (1 - decay);
}
// g / sqrt(v / n + epsilon), with one division.
KLOPF_FN float over_root(float g, float v, float n, float epsilon) { return g * sqrtf(n / (v + epsilon * n)); }

// Sharifnassab, Salehkaleybar and Sutton 2025, with AdamW for weights and Lion for step sizes, of which this is the latter: `mean` is that
// of the meta-gradient m, the sum of -g h over an owner's weights.
KLOPF_FN void lion(float& b, float& mean, float m, float theta) {
  mean = 0.99f * mean + 0.01f * m;
  const float to = 0.9f * mean + 0.1f * m;
  b = b + (to > 0 ? theta : to < 0 ? -theta : 0.0f);
}
// w <- (1 - alpha lambda) w - alpha m / (sqrt(v) + epsilon), and h <- keep h - alpha g / (sqrt(v) + epsilon); m and v are running means,
// each divided by what it counts for.
struct AdamW {
  float first_decay, decay, epsilon, weight_decay;
};
KLOPF_FN void adamw(float& w, float& h, float& m, float& m_count, float& v, float& v_count, float g, float alpha, float keep, AdamW r) {
  m = r.first_decay * m + (1 - r.first_decay) * g;
  m_count = r.first_decay * m_count + (1 - r.first_decay);
  mean_square(g, v, v_count, r.decay);
  const float step = alpha / (sqrtf(v / v_count) + r.epsilon);
  w = w - alpha * r.weight_decay * w - step * (m / m_count);
  h = keep * h - step * g;
}

// Sharifnassab et al. 2026: along traces e over r, the root of their gradients' mean square, by eta / sqrt(sigma sum e^2 / r), where sigma
// is the running mean of sum g^2 / r.
KLOPF_FN float intentional_step(float& sigma, float& count, float now, float along, float eta, float fade) {
  sigma = fade * sigma + (1 - fade) * now;
  count = fade * count + (1 - fade);
  const float size = sqrtf((count > 0 ? sigma / count : now) * along);  // of traces that never fade there is no mean
  return eta / (size > 1e-8f ? size : 1e-8f);
}

// What a rule does to the i-th weight of a run; `own`: every weight owns its step size, or its bound.
struct StepArrays {
  float* w;
  const float* g;  // gradients; or traces, of which -delta times are
  float *h, *b, *v, *n, *m, *m_count;
  const float *c, *now;  // g where there are none: a vector's load from nowhere takes hundreds of cycles, though its mask is empty
  float initial, meta, decay, epsilon, first_decay, weight_decay;
  float lowest, highest;  // of b
  float sign;             // of gradients 1, of traces -delta
  bool traced;
  KLOPF_MEMBER_FN float gradient(int64_t i) const { return sign * g[i]; }
  // Of the newest sample alone, and the curvature along the trace (TIDBD): both as above where there are no traces.
  KLOPF_MEMBER_FN float newest(int64_t i) const { return traced ? sign * now[i] : g[i]; }
  KLOPF_MEMBER_FN float curvature(int64_t i) const { return traced ? now[i] * g[i] : c[i]; }
};
KLOPF_FN double reach_of(const StepSizes& all, const Play& play, int run) {  // max(|delta|, 1)
  const double delta = all.delta.present() ? *play.at(all.delta, run) : 1.0, size = delta < 0 ? -delta : delta;
  return size > 1 ? size : 1.0;
}
KLOPF_FN StepArrays arrays_of(const StepSizes& all, const Play& play, int run) {
  const auto number = [&](Ref<double> ref) { return ref.present() ? static_cast<float>(*play.at(ref, run)) : 0.0f; };
  const float* g = play.at(all.grads, run);
  return {play.at(all.weights, run),
          g,
          play.at(all.trace, run),
          play.at(all.log_step, run),
          play.at(all.scale, run),
          play.at(all.count, run),
          play.at(all.first, run),
          play.at(all.first_count, run),
          all.curvature.present() ? play.at(all.curvature, run) : g,
          all.now.present() ? play.at(all.now, run) : g,
          number(all.step_size),
          number(all.meta_step_size),
          number(all.decay),
          number(all.epsilon),
          number(all.first_decay),
          number(all.weight_decay),
          all.lowest.present() ? number(all.lowest) : -HUGE_VALF,
          all.highest.present() ? number(all.highest) : HUGE_VALF,
          all.delta.present() ? -number(all.delta) : 1.0f,
          all.now.present()};
}
template <StepRule rule, bool own>
struct WeightRule {
  static constexpr bool bounded = rule == StepRule::obgd || rule == StepRule::adaptive_obgd;
  // Adds what its row's sums are over.
  KLOPF_MEMBER_FN void measure(const StepArrays& a, AutostepRates rates, int64_t i, float& first, float& second) const {
    if constexpr (rule == StepRule::adaptive_obgd) mean_square(a.gradient(i), a.v[i], a.n[i], a.decay);
    if constexpr (bounded) {
      const float z = along(a, i);
      first += z < 0 ? -z : z;
    } else if constexpr (own) {  // Autostep: IDBD needs no sums
      autostep(a.b[i], a.v[i], -(a.newest(i) * a.h[i]), a.curvature(i), rates);
      a.b[i] = within(a.b[i], a.lowest, a.highest);
      second += a.initial * exp_of(a.b[i]) * a.curvature(i);
    } else if constexpr (rule == StepRule::meta_optimize) {
      first -= a.gradient(i) * a.h[i];
    } else if constexpr (rule == StepRule::intentional) {
      mean_square(a.now[i], a.v[i], a.n[i], a.decay);
      const float over = 1 / root(a, i);
      first += a.now[i] * a.now[i] * over;
      second += a.g[i] * a.g[i] * over;
    } else {
      first -= a.newest(i) * a.h[i];
      second += a.curvature(i);
    }
  }
  // With its row's factors. reach: of what a weight that has its own bound moves along.
  KLOPF_MEMBER_FN void apply(const StepArrays& a, int64_t i, float first, float second, double reach) const {
    if constexpr (bounded && own) {
      if constexpr (rule == StepRule::adaptive_obgd) mean_square(a.gradient(i), a.v[i], a.n[i], a.decay);
      const float z = along(a, i);
      a.w[i] -= static_cast<float>(obgd_step(a.initial, a.meta, reach * (z < 0 ? -z : z))) * (a.sign * z);
    } else if constexpr (bounded) {
      a.w[i] -= first * (a.sign * along(a, i));
    } else if constexpr (rule == StepRule::meta_optimize) {
      adamw(a.w[i], a.h[i], a.m[i], a.m_count[i], a.v[i], a.n[i], a.gradient(i), first, second,
            {a.first_decay, a.decay, a.epsilon, a.weight_decay});
    } else if constexpr (rule == StepRule::intentional) {
      a.w[i] -= first * (a.sign * a.g[i] / root(a, i));
    } else if constexpr (rule == StepRule::fixed) {
      a.w[i] -= a.initial * a.gradient(i);
    } else if constexpr (own) {
      a.b[i] = rule == StepRule::idbd ? within(idbd(a.b[i], -(a.newest(i) * a.h[i]), a.meta), a.lowest, a.highest) : a.b[i] - first;
      const float alpha = a.initial * exp_of(a.b[i]);
      follow(a.w[i], a.h[i], a.gradient(i), alpha, kept(alpha, a.curvature(i)), a.weight_decay);
    } else {
      follow(a.w[i], a.h[i], a.gradient(i), first, second, a.weight_decay);
    }
  }
  // What ObGD moves along, but for its sign.
  KLOPF_MEMBER_FN float along(const StepArrays& a, int64_t i) const {
    if constexpr (rule == StepRule::adaptive_obgd) return over_root(a.g[i], a.v[i], a.n[i], a.epsilon);
    else return a.g[i];
  }
  KLOPF_MEMBER_FN float root(const StepArrays& a, int64_t i) const { return sqrtf(a.v[i] / a.n[i]) + a.epsilon; }
};
// Calls work(WeightRule{}) for the rule and its scope.
template <class Work>
KLOPF_FN void with_weight_rule(const StepSizes& all, Work work) {
  const bool own = all.scope == Scope::weight;
  switch (all.rule) {
    case StepRule::idbd: return own ? work(WeightRule<StepRule::idbd, true>{}) : work(WeightRule<StepRule::idbd, false>{});
    case StepRule::autostep: return own ? work(WeightRule<StepRule::autostep, true>{}) : work(WeightRule<StepRule::autostep, false>{});
    case StepRule::obgd: return own ? work(WeightRule<StepRule::obgd, true>{}) : work(WeightRule<StepRule::obgd, false>{});
    case StepRule::adaptive_obgd:
      return own ? work(WeightRule<StepRule::adaptive_obgd, true>{}) : work(WeightRule<StepRule::adaptive_obgd, false>{});
    case StepRule::meta_optimize: return work(WeightRule<StepRule::meta_optimize, false>{});
    case StepRule::intentional: return work(WeightRule<StepRule::intentional, false>{});
    case StepRule::fixed: return work(WeightRule<StepRule::fixed, false>{});
    case StepRule::swift_td: return;  // has an operation of its own
  }
}

}  // namespace klopf
