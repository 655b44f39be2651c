// Linear layers: y = W x + b with W [outputs, inputs].
constexpr int few_samples = 4;  // below this, packing the weights costs more than it saves

// Of a few rows of W at a time, whose sums do not wait for each other. Each is added up as `dot` does.
constexpr int rows_at_once = 4;
template <int rows>
KLOPF_FN void dot_rows(const float* x, const float* w, int64_t n, const float* bias, float* out) {
  Sum16 sums[rows];
  int64_t i = 0;
  for (; i + 16 <= n; i += 16)
    for (int k = 0; k < 16 / lanes; ++k) {
      const V at = load(x + i + k * lanes);
#pragma GCC unroll 4
      for (int r = 0; r < rows; ++r) sums[r].part[k] = fma(at, load(w + r * n + i + k * lanes), sums[r].part[k]);
    }
  for (int k = 0; i < n; ++k, i += lanes) {
    const int left = n - i < lanes ? static_cast<int>(n - i) : lanes;
    const V at = load_first(x + i, left);
#pragma GCC unroll 4
    for (int r = 0; r < rows; ++r) sums[r].part[k] = fma(at, load_first(w + r * n + i, left), sums[r].part[k]);
  }
  for (int r = 0; r < rows; ++r) out[r] = bias[r] + sums[r].total();
}

void linear_forward(const LinearForward& op, const Play& play) {
  const int inputs = op.shape.inputs, outputs = op.shape.outputs, count = play.batch.count;
  const float *input = play.at(op.input), *weight = play.at(op.weight), *bias = play.at(op.bias);
  float* output = play.at(op.output);
  if (count < few_samples) {
    for (int b = 0; b < count; ++b, input += inputs, output += outputs) {
      int o = 0;
      for (; o + rows_at_once <= outputs; o += rows_at_once)
        dot_rows<rows_at_once>(input, weight + static_cast<int64_t>(o) * inputs, inputs, bias + o, output + o);
      for (; o < outputs; ++o) dot_rows<1>(input, weight + static_cast<int64_t>(o) * inputs, inputs, bias + o, output + o);
    }
    return;
  }
  const Matrix x{input, inputs, 1};
  if (can_be_sparse(outputs) && is_sparse(x, count, inputs))
    return multiply_sparse(x, count, {weight, 1, inputs}, outputs, inputs, bias, output);
  float* packed = play.at(op.scratch);
  pack_blocks(weight, outputs, inputs, packed);
  for (int o = 0; o < outputs; o += block, packed += static_cast<int64_t>(inputs) * block) {
    const BlockBias biases = load_bias(bias, o, outputs);
    with_tile(outputs - o, [&](auto empty) {
      for (int b = 0; b < count; b += empty.rows) {
        const float* rows[most_rows];
        for (int i = 0; i < empty.rows; ++i) rows[i] = input + static_cast<int64_t>(b + i < count ? b + i : count - 1) * inputs;
        auto tile = empty;
        multiply_add(tile, rows, 1, packed, block, inputs);
        add_bias(tile, biases);
        for (int i = 0; i < empty.rows && b + i < count; ++i)
          store_channels(output + static_cast<int64_t>(b + i) * outputs + o, tile.at[i], outputs - o);
      }
    });
  }
}

// out[rows, columns] = a^T-or-a times b: out[r][v] = sum_l a[r * a_row + l * a_step] * b[l * columns + v].
KLOPF_FN void multiply_rows(const float* a, int64_t a_row, int64_t a_step, int rows, const float* b, int columns, int length, float* out) {
  const Matrix left{a, a_row, a_step};
  if (can_be_sparse(columns) && is_sparse(left, rows, length))
    return multiply_sparse(left, rows, {b, columns, 1}, columns, length, nullptr, out);
  for (int v = 0; v < columns; v += block)
    with_tile(columns - v, [&](auto empty) {
      for (int r = 0; r < rows; r += empty.rows) {
        const float* at[most_rows];
        for (int i = 0; i < empty.rows; ++i) at[i] = a + a_row * (r + i < rows ? r + i : rows - 1);
        auto tile = empty;
        multiply_add(tile, at, a_step, b + v, columns, length);
        for (int i = 0; i < empty.rows && r + i < rows; ++i)
          store_channels(out + static_cast<int64_t>(r + i) * columns + v, tile.at[i], columns - v);
      }
    });
}

// out[r][v] = a[r] b[v]
KLOPF_FN void outer_product(const float* a, int rows, const float* b, int columns, float* out) {
  for (int r = 0; r < rows; ++r, out += columns) {
    const V by = broadcast(a[r]);
    for_lanes(columns, [&](int v, auto get, auto put) { put(out + v, fma(by, get(b + v), V{})); });
  }
}

void linear_backward(const LinearBackward& op, const Play& play) {
  const int inputs = op.shape.inputs, outputs = op.shape.outputs, count = play.batch.count;
  const float *input = play.at(op.input), *weight = play.at(op.weight), *grad_output = play.at(op.grad_output);
  if (op.grad_weight.present()) {
    float* grad_weight = play.at(op.grad_weight);
    if (count == 1) outer_product(grad_output, outputs, input, inputs, grad_weight);
    else multiply_rows(grad_output, 1, outputs, outputs, input, inputs, count, grad_weight);
    float* grad_bias = play.at(op.grad_bias);
    for (int o = 0; o < outputs; ++o) grad_bias[o] = 0;
    for (int b = 0; b < count; ++b)
      for (int o = 0; o < outputs; ++o) grad_bias[o] += grad_output[static_cast<int64_t>(b) * outputs + o];
  }
  if (op.grad_input.present()) multiply_rows(grad_output, outputs, 1, count, weight, inputs, outputs, play.at(op.grad_input));
}

// Row by row of W: its part of the input's gradient, then its update. Rows whose output has no gradient, such as those of units
// that ReLU shut, are not touched where nothing but the gradient would move them.
void linear_backward_sgd(const LinearBackwardSgd& op, const Play& play) {
  const LinearBackward& layer = op.layer;
  const int inputs = layer.shape.inputs, outputs = layer.shape.outputs;
  const float *x = play.at(layer.input), *grad_output = play.at(layer.grad_output);
  float *w = play.at(layer.weight), *bias = play.at(op.bias), *v = play.at(op.momentum), *bias_v = play.at(op.bias_momentum);
  float* grad_input = play.at(layer.grad_input);
  const float alpha = static_cast<float>(*play.at(op.sgd.step_size)), mu = static_cast<float>(*play.at(op.sgd.momentum_rate));
  const float lambda = static_cast<float>(*play.at(op.sgd.weight_decay));
  const bool only_gradient = !v && lambda == 0;
  float bias_unsound = 0;  // not 0 once a number is not finite
  V unsound{};
  if (grad_input)
    for (int i = 0; i < inputs; ++i) grad_input[i] = 0;
  for (int o = 0; o < outputs; ++o, w += inputs) {
    const float delta = grad_output[o];
    if (only_gradient && delta == 0) continue;
    if (v) sgd_update(bias[o], delta, bias_v[o], alpha, mu, lambda);
    else sgd_update(bias[o], delta, alpha, lambda);
    bias_unsound += bias[o] - bias[o];
    const V d = broadcast(delta), keep = broadcast(mu), step = broadcast(alpha), decay = broadcast(lambda);
    const auto update = [&](int i, auto get, auto put) {
      V weight = get(w + i);
      if (grad_input) put(grad_input + i, fma(d, weight, get(grad_input + i)));
      V change = d * get(x + i) + decay * weight;
      if (v) put(v + i, change = keep * get(v + i) + change);
      weight -= step * change;
      put(w + i, weight);
      unsound += weight - weight;
    };
    for_lanes(inputs, update);
    if (v) v += inputs;
  }
  for (int k = 0; k < lanes; ++k) bias_unsound += unsound[k];
  if (!(bias_unsound == 0)) *play.at(op.sgd.alive) = 0;
}

// A few rows at a time: their parts of the input's gradient are added in order, as if one by one.
template <int rows>
KLOPF_FN void trace_rows(const float* x, const float* w, const float* g, float* e, int64_t inputs, float decay, float* grad_input,
                         Sum16* sums) {
  const V keep = broadcast(decay);
  V grads[rows];
  for (int r = 0; r < rows; ++r) grads[r] = broadcast(g[r]);
  int part = 0;
  for_lanes(static_cast<int>(inputs), [&](int i, auto get, auto put) {
    const V at = get(x + i);
    V sum = grad_input ? get(grad_input + i) : V{};
#pragma GCC unroll 4
    for (int r = 0; r < rows; ++r) {
      const V trace = keep * get(e + r * inputs + i) + grads[r] * at;
      put(e + r * inputs + i, trace);
      sums[r].part[part] += magnitude(trace);
      if (grad_input) sum = fma(grads[r], get(w + r * inputs + i), sum);
    }
    part = (part + 1) % (16 / lanes);
    if (grad_input) put(grad_input + i, sum);
  });
}

void linear_backward_trace(const LinearBackwardTrace& op, const Play& play) {
  const LinearBackward& layer = op.layer;
  const int inputs = layer.shape.inputs, outputs = layer.shape.outputs;
  const float *x = play.at(layer.input), *w = play.at(layer.weight), *g = play.at(layer.grad_output);
  float *e = play.at(op.traces), *bias = play.at(op.bias_traces), *grad_input = play.at(layer.grad_input);
  double* sums = play.at(op.sums);
  const float decay = static_cast<float>(*play.at(op.decay));
  if (grad_input)
    for (int i = 0; i < inputs; ++i) grad_input[i] = 0;
  const auto visit = [&](int o, auto rows) {
    constexpr int count = decltype(rows)::value;
    Sum16 found[count];
    const int64_t first = static_cast<int64_t>(o) * inputs;
    trace_rows<count>(x, w + first, g + o, e + first, inputs, decay, grad_input, found);
    for (int r = o; r < o + count; ++r) {
      bias[r] = decay * bias[r] + g[r];
      sums[2 * r] = static_cast<double>(found[r - o].total()) + (bias[r] < 0 ? -bias[r] : bias[r]);
    }
  };
  int o = 0;
  for (; o + rows_at_once <= outputs; o += rows_at_once) visit(o, Number<rows_at_once>{});
  for (; o < outputs; ++o) visit(o, Number<1>{});
}
