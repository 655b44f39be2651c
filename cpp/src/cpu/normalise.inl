// Normalisation of samples or batches, and the gains and biases behind it.

void layer_norm_forward(const LayerNormForward& op, const Play& play) {
  const float* x = play.at(op.input);
  float *y = play.at(op.output), *inverse_std = play.at(op.inverse_std);
  for (int b = 0; b < play.batch.count; ++b, x += op.size, y += op.size) {
    const float mean = sum_of(x, op.size) / op.size;
    for (int64_t i = 0; i < op.size; ++i) y[i] = x[i] - mean;
    const float inverse = 1 / sqrtf(dot(y, y, op.size) / op.size + op.epsilon);
    for (int64_t i = 0; i < op.size; ++i) y[i] *= inverse;
    inverse_std[b] = inverse;
  }
}

// grad x = (g - mean g - y mean(g y)) / std
void layer_norm_backward(const LayerNormBackward& op, const Play& play) {
  const float *y = play.at(op.output), *inverse_std = play.at(op.inverse_std), *g = play.at(op.grad_output);
  float* grad_input = play.at(op.grad_input);
  for (int b = 0; b < play.batch.count; ++b, y += op.size, g += op.size, grad_input += op.size) {
    const float mean = sum_of(g, op.size) / op.size;
    const float along = dot(g, y, op.size) / op.size;
    for (int64_t i = 0; i < op.size; ++i) grad_input[i] = inverse_std[b] * (g[i] - mean - y[i] * along);
  }
}

// Columns that are summed side by side, and rows that float adds up before float64 does.
constexpr int columns_at_once = 64, rows_in_float = 32;

// For every column of [rows, columns]: put(column, sum of term(place, column)), in the order of rows.
template <class Term, class Put>
KLOPF_FN void sum_columns(int64_t rows, int64_t columns, Term term, Put put) {
  for (int64_t first = 0; first < columns; first += columns_at_once) {
    const int width = columns - first < columns_at_once ? static_cast<int>(columns - first) : columns_at_once;
    double total[columns_at_once] = {};
    for (int64_t from = 0; from < rows; from += rows_in_float) {
      const int64_t to = rows - from < rows_in_float ? rows : from + rows_in_float;
      float part[columns_at_once] = {};
      for (int64_t row = from; row < to; ++row)
#pragma GCC ivdep
        for (int c = 0; c < width; ++c) part[c] += term(row * columns + first + c, first + c);
      for (int c = 0; c < width; ++c) total[c] += part[c];
    }
    for (int c = 0; c < width; ++c) put(first + c, total[c]);
  }
}

// Calls visit(place, column) for all of [rows, columns].
template <class Visit>
KLOPF_FN void for_columns(int64_t rows, int64_t columns, Visit visit) {
  for (int64_t row = 0; row < rows; ++row)
#pragma GCC ivdep
    for (int64_t c = 0; c < columns; ++c) visit(row * columns + c, c);
}

void batch_norm_forward(const BatchNormForward& op, const Play& play) {
  const float* x = play.at(op.input);
  float *y = play.at(op.output), *mean = play.at(op.mean), *variance = play.at(op.variance), *inverse = play.at(op.inverse_std);
  const int64_t rows = static_cast<int64_t>(play.batch.count) * op.positions;
  const double count = static_cast<double>(rows);
  sum_columns(
      rows, op.channels, [=](int64_t i, int64_t) { return x[i]; },
      [=](int64_t c, double sum) { mean[c] = static_cast<float>(sum / count); });
  for_columns(rows, op.channels, [=](int64_t i, int64_t c) { y[i] = x[i] - mean[c]; });
  sum_columns(
      rows, op.channels, [=](int64_t i, int64_t) { return y[i] * y[i]; },
      [=, &op](int64_t c, double sum) {
        variance[c] = static_cast<float>(sum / count);
        inverse[c] = 1 / sqrtf(variance[c] + op.epsilon);
      });
  for_columns(rows, op.channels, [=](int64_t i, int64_t c) { y[i] *= inverse[c]; });
}

// As of samples, over the rows of a channel.
void batch_norm_backward(const BatchNormBackward& op, const Play& play) {
  const float *y = play.at(op.output), *inverse = play.at(op.inverse_std), *g = play.at(op.grad_output);
  float *grad_input = play.at(op.grad_input), *mean = play.at(op.mean), *along = play.at(op.along);
  const int64_t rows = static_cast<int64_t>(play.batch.count) * op.positions;
  const double count = static_cast<double>(rows);
  sum_columns(
      rows, op.channels, [=](int64_t i, int64_t) { return g[i]; },
      [=](int64_t c, double sum) { mean[c] = static_cast<float>(sum / count); });
  sum_columns(
      rows, op.channels, [=](int64_t i, int64_t) { return g[i] * y[i]; },
      [=](int64_t c, double sum) { along[c] = static_cast<float>(sum / count); });
  for_columns(rows, op.channels, [=](int64_t i, int64_t c) { grad_input[i] = inverse[c] * (g[i] - mean[c] - y[i] * along[c]); });
}

void batch_norm_apply(const BatchNormApply& op, const Play& play) {
  const float *x = play.at(op.input), *mean = play.at(op.running_mean), *variance = play.at(op.running_variance);
  float* y = play.at(op.output);
  for_columns(static_cast<int64_t>(play.batch.count) * op.positions, op.channels,
              [=, &op](int64_t i, int64_t c) { y[i] = (x[i] - mean[c]) / sqrtf(variance[c] + op.epsilon); });
}

void scale_forward(const ScaleForward& op, const Play& play) {
  const float *x = play.at(op.input), *gain = play.at(op.weight), *bias = play.at(op.bias);
  float* y = play.at(op.output);
  for_columns(play.batch.count * op.size / op.gains, op.gains, [=](int64_t i, int64_t c) { y[i] = gain[c] * x[i] + bias[c]; });
}

void scale_backward(const ScaleBackward& op, const Play& play) {
  const float *x = play.at(op.input), *gain = play.at(op.weight), *g = play.at(op.grad_output);
  float *grad_gain = play.at(op.grad_weight), *grad_bias = play.at(op.grad_bias), *grad_input = play.at(op.grad_input);
  const int64_t rows = play.batch.count * op.size / op.gains;
  if (grad_gain) {
    sum_columns(
        rows, op.gains, [=](int64_t i, int64_t) { return g[i] * x[i]; },
        [=](int64_t c, double sum) { grad_gain[c] = static_cast<float>(sum); });
    sum_columns(
        rows, op.gains, [=](int64_t i, int64_t) { return g[i]; }, [=](int64_t c, double sum) { grad_bias[c] = static_cast<float>(sum); });
  }
  if (grad_input) for_columns(rows, op.gains, [=](int64_t i, int64_t c) { grad_input[i] = gain[c] * g[i]; });
}
