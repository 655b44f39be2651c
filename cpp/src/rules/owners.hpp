#pragma once
#include "rules/step_sizes.hpp"

// What rows share: an owner's step size, and a bound on the steps of several. `run` is 0 where a play is of one run.
namespace klopf {

struct Rows {
  int first, count;
};
template <class Op>
KLOPF_FN Rows rows_of(const Op& op, int k) {
  return op.each_row ? Rows{op.first_row + k, 1} : Rows{op.first_row, op.rows};
}
KLOPF_FN double total(const double* sums, Rows rows, int which) {
  double sum = 0;
  for (int r = rows.first; r < rows.first + rows.count; ++r) sum += sums[2 * r + which];
  return sum;
}

// An owner's step size alpha under IDBD or Autostep, from its m and c.
struct OwnerRates {
  AutostepRates autostep;
  float initial, meta, lowest, highest;  // the latter of b
};
KLOPF_FN OwnerRates owner_rates(const StepSizes& all, const Play& play, int run) {
  const auto limit = [&](Ref<double> ref, float without) { return ref.present() ? static_cast<float>(*play.at(ref, run)) : without; };
  return {autostep_rates(all, play, run), static_cast<float>(*play.at(all.step_size, run)),
          static_cast<float>(*play.at(all.meta_step_size, run)), limit(all.lowest, -HUGE_VALF), limit(all.highest, HUGE_VALF)};
}
template <StepRule rule>
KLOPF_FN float owner_step(float& b, float* v, float m, float c, OwnerRates r) {
  if constexpr (rule == StepRule::idbd) b = idbd(b, m, r.meta);
  else autostep(b, *v, m, c, r.autostep);
  b = within(b, r.lowest, r.highest);
  return r.initial * exp_of(b);
}

// What a row has of its owner's alpha, and leaves in its sums: c over all of the owner's rows, and its own alpha c.
KLOPF_FN void share_step(double* sums, float* factors, float alpha, float c) {
  sums[1] *= alpha;
  sums[0] = c;
  factors[0] = alpha, factors[1] = kept(alpha, c);
}

// The k-th owner's step size, from the sums of -g h and c over its rows, which share it.
KLOPF_FN void own_rows(const OwnSteps& op, const Play& play, int run, int k) {
  const StepSizes& all = op.all;
  double* sums = play.at(all.sums, run);
  float* factors = play.at(all.factors, run);
  const Rows rows = rows_of(op, k);
  const float m = static_cast<float>(total(sums, rows, 0)), c = static_cast<float>(total(sums, rows, 1));
  if (all.rule == StepRule::intentional) {
    const float step = intentional_step(play.at(all.owner_scale, run)[op.owner + k], play.at(all.owner_count, run)[op.owner + k], m, c,
                                        static_cast<float>(*play.at(all.step_size, run)), static_cast<float>(*play.at(all.discount, run)));
    for (int r = rows.first; r < rows.first + rows.count; ++r) factors[2 * r] = step;
    return;
  }
  float& b = play.at(all.owner_log_step, run)[op.owner + k];
  if (all.rule == StepRule::meta_optimize) {  // this step is as before it
    const float alpha = static_cast<float>(*play.at(all.step_size, run)) * exp_of(b),
                keep = static_cast<float>(*play.at(all.discount, run) * (1 - alpha * *play.at(all.weight_decay, run)));
    for (int r = rows.first; r < rows.first + rows.count; ++r) factors[2 * r] = alpha, factors[2 * r + 1] = keep;
    return lion(b, play.at(all.owner_scale, run)[op.owner + k], m, static_cast<float>(*play.at(all.meta_step_size, run)));
  }
  const OwnerRates rates = owner_rates(all, play, run);
  const float alpha = all.rule == StepRule::idbd
                          ? owner_step<StepRule::idbd>(b, nullptr, m, c, rates)
                          : owner_step<StepRule::autostep>(b, play.at(all.owner_scale, run) + op.owner + k, m, c, rates);
  for (int r = rows.first; r < rows.first + rows.count; ++r) {
    share_step(sums + 2 * r, factors + 2 * r, alpha, c);
  }
}

// Autostep: the step sizes of the k-th rows are divided by M = max(sum alpha c, 1). ObGD: these rows' one step size.
KLOPF_FN void bound_rows(const BoundSteps& op, const Play& play, int run, int k) {
  const StepSizes& all = op.all;
  const double* sums = play.at(all.sums, run);
  float* factors = play.at(all.factors, run);
  const Rows rows = rows_of(op, k);
  if (all.rule != StepRule::autostep) {
    const double reach = reach_of(all, play, run) * total(sums, rows, 0);
    const double alpha = obgd_step(*play.at(all.step_size, run), *play.at(all.meta_step_size, run), reach);
    for (int r = rows.first; r < rows.first + rows.count; ++r) factors[2 * r] = static_cast<float>(alpha);
    return;
  }
  const float excess = autostep_excess(total(sums, rows, 1));
  if (all.scope == Scope::weight) {
    for (int r = rows.first; r < rows.first + rows.count; ++r) factors[2 * r] = excess;
    return;
  }
  if (!(excess > 0)) return;
  const int each = op.each_row ? 1 : op.owners;
  for (int o = 0; o < each; ++o) play.at(all.owner_log_step, run)[op.owner + k + o] -= excess;
  for (int r = rows.first; r < rows.first + rows.count; ++r) {
    const float alpha = factors[2 * r] * exp_of(-excess);
    factors[2 * r] = alpha, factors[2 * r + 1] = kept(alpha, static_cast<float>(sums[2 * r]));
  }
}

}  // namespace klopf
