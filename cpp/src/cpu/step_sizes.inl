// Rules by which step sizes follow from what is learned: what is done for every weight.

// Adds work(i, a, b)'s two numbers over a row's weights and its bias, i their places among all weights.
struct RowSums {
  double first, second;
};
template <class Work>
KLOPF_FN RowSums sum_row(const StepLayer& layer, int row, Work work) {
  float a[16] = {}, b[16] = {};
  const int64_t first = layer.weight + static_cast<int64_t>(row) * layer.columns;
  int i = 0;
  for (; i + 16 <= layer.columns; i += 16)
#pragma GCC ivdep
    for (int k = 0; k < 16; ++k) work(first + i + k, a[k], b[k]);
  for (int k = 0; i + k < layer.columns; ++k) work(first + i + k, a[k], b[k]);
  for (int half = 8; half > 0; half /= 2)
    for (int k = 0; k < half; ++k) a[k] += a[k + half], b[k] += b[k + half];
  float last_a = 0, last_b = 0;
  if (layer.bias >= 0) work(layer.bias + row, last_a, last_b);
  return {static_cast<double>(a[0]) + last_a, static_cast<double>(b[0]) + last_b};
}

void measure_steps(const MeasureSteps& op, const Play& play) {
  const StepArrays arrays = arrays_of(op.all, play, 0);
  const AutostepRates rates = autostep_rates(op.all, play, 0);
  double* sums = play.at(op.all.sums) + 2 * op.layer.first_row;
  with_weight_rule(op.all, [&](auto rule) {
    for (int row = 0; row < op.layer.rows; ++row) {
      const RowSums found =
          sum_row(op.layer, row, [&](int64_t i, float& first, float& second) { rule.measure(arrays, rates, i, first, second); });
      sums[2 * row] = found.first, sums[2 * row + 1] = found.second;
    }
  });
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
  int32_t largest = 0;  // magnitude of a weight, as bits: of numbers that are not finite they are the largest
  with_weight_rule(op.all, [&](auto rule) {
    const auto apply = [&](int64_t from, int64_t count, const float* factor) {
      const float first = factor[0], second = factor[1];
#pragma GCC ivdep
      for (int64_t i = from; i < from + count; ++i) {
        rule.apply(arrays, i, first, second, reach);
        int32_t bits;
        memcpy(&bits, arrays.w + i, 4);
        bits &= 0x7fffffff;
        largest = bits > largest ? bits : largest;
      }
    };
    for (int row = 0; row < rows; ++row) {
      apply(layer.weight + row * columns, columns, factors + 2 * row);
      if (layer.bias >= 0) apply(layer.bias + row, biases, factors + 2 * row);
    }
  });
  if (largest >= 0x7f800000) *play.at(op.all.alive) = 0;
}
