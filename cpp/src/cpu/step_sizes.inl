// Rules by which step sizes follow from what is learned: what is done for every weight.

// visit(i, i % 16) for all i below count: sixteen at a time, then eight, four, two and one. (Not what is left under a mask: a load waits
// long for a store under one.) Lambdas on the way here are always inlined: what they hold by reference else keeps loops scalar.
template <int at_once, class Visit>
KLOPF_FN void visit_some(int64_t first, int place, Visit visit) {
#pragma GCC ivdep
  for (int k = 0; k < at_once; ++k) visit(first + k, place + k);
}
template <class Visit>
KLOPF_FN void by_sixteen(int64_t count, Visit visit) {
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) visit_some<16>(i, 0, visit);
  int place = 0;
  if (count - i >= 8) visit_some<8>(i, place, visit), i += 8, place += 8;
  if (count - i >= 4) visit_some<4>(i, place, visit), i += 4, place += 4;
  if (count - i >= 2) visit_some<2>(i, place, visit), i += 2, place += 2;
  if (count - i >= 1) visit(i, place);
}

// Adds work(i, a, b)'s two numbers over a row's weights and its bias, i their places among all weights.
struct RowSums {
  double first, second;
};
template <class Work>
KLOPF_FN RowSums sum_row(const StepLayer& layer, int row, Work work) {
  float a[16] = {}, b[16] = {}, last_a = 0, last_b = 0;
  const int64_t first = layer.weight + static_cast<int64_t>(row) * layer.columns;
  by_sixteen(layer.columns, [&](int64_t i, int k) __attribute__((always_inline)) { work(first + i, a[k], b[k]); });
  if (layer.bias >= 0) work(layer.bias + row, last_a, last_b);
  return {static_cast<double>(total_of_16(a)) + last_a, static_cast<double>(total_of_16(b)) + last_b};
}

void measure_steps(const MeasureSteps& op, const Play& play) {
  const StepArrays arrays = arrays_of(op.all, play, 0);
  const AutostepRates rates = autostep_rates(op.all, play, 0);
  double* sums = play.at(op.all.sums) + 2 * op.layer.first_row;
  with_weight_rule(op.all, [&](auto rule) __attribute__((always_inline)) {
    for (int row = 0; row < op.layer.rows; ++row) {
      const RowSums found = sum_row(op.layer, row, [&](int64_t i, float& first, float& second) __attribute__((always_inline)) {
        rule.measure(arrays, rates, i, first, second);
      });
      sums[2 * row] = found.first, sums[2 * row + 1] = found.second;
    }
  });
}

// Rows that own their step sizes under IDBD or Autostep, many at once.
template <StepRule rule>
KLOPF_FN void own_each_row(const OwnSteps& op, const Play& play) {
  double* sums = play.at(op.all.sums) + 2 * op.first_row;
  float* factors = play.at(op.all.factors) + 2 * op.first_row;
  float* b = play.at(op.all.owner_log_step) + op.owner;
  float* v = rule == StepRule::autostep ? play.at(op.all.owner_scale) + op.owner : b;  // IDBD asks for none
  const OwnerRates rates = owner_rates(op.all, play, 0);
#pragma GCC ivdep
  for (int r = 0; r < op.rows; ++r) {
    const float c = static_cast<float>(sums[2 * r + 1]);
    const float alpha = owner_step<rule>(b[r], v + r, static_cast<float>(sums[2 * r]), c, rates);
    share_step(sums + 2 * r, factors + 2 * r, alpha, c);
  }
}

void own_steps(const OwnSteps& op, const Play& play) {
  if (op.each_row && op.all.rule == StepRule::autostep) return own_each_row<StepRule::autostep>(op, play);
  if (op.each_row && op.all.rule == StepRule::idbd) return own_each_row<StepRule::idbd>(op, play);
  for (int k = 0; k < (op.each_row ? op.rows : 1); ++k) own_rows(op, play, 0, k);
}

void apply_steps(const ApplySteps& op, const Play& play) {
  const StepArrays arrays = arrays_of(op.all, play, 0);
  const StepLayer& layer = op.layer;
  const float* factors = play.at(op.all.factors) + 2 * layer.first_row;
  const double reach = reach_of(op.all, play, 0);
  // Rows that share their factors are one.
  const bool alike = op.all.scope == Scope::network || op.all.scope == Scope::layer;
  const int rows = alike ? 1 : layer.rows, biases = alike ? layer.rows : 1;
  const int64_t columns = alike ? static_cast<int64_t>(layer.rows) * layer.columns : layer.columns;
  int32_t largest[16] = {};  // magnitudes of weights, as bits: of numbers that are not finite they are the largest
  with_weight_rule(op.all, [&](auto rule) __attribute__((always_inline)) {
    const auto apply = [&](int64_t from, int64_t count, const float* factor) __attribute__((always_inline)) {
      const float first = factor[0], second = factor[1];
      by_sixteen(count, [&](int64_t i, int k) __attribute__((always_inline)) {
        rule.apply(arrays, from + i, first, second, reach);
        int32_t bits;
        memcpy(&bits, arrays.w + from + i, 4);
        bits &= 0x7fffffff;
        largest[k] = bits > largest[k] ? bits : largest[k];
      });
    };
    for (int row = 0; row < rows; ++row) {
      apply(layer.weight + row * columns, columns, factors + 2 * row);
      if (layer.bias >= 0) apply(layer.bias + row, biases, factors + 2 * row);
    }
  });
  for (const int32_t bits : largest)
    if (bits >= 0x7f800000) *play.at(op.all.alive) = 0;
}
