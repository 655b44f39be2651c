// Linear layers: y = W x + b with W [outputs, inputs].
constexpr int few_samples = 4;  // below this, packing the weights costs more than it saves

void linear_forward(const LinearForward& op, const Play& play) {
  const int inputs = op.shape.inputs, outputs = op.shape.outputs, count = play.batch.count;
  const float *input = play.at(op.input), *weight = play.at(op.weight), *bias = play.at(op.bias);
  float* output = play.at(op.output);
  if (count < few_samples) {
    for (int b = 0; b < count; ++b)
      for (int o = 0; o < outputs; ++o)
        output[static_cast<int64_t>(b) * outputs + o] =
            bias[o] + dot(input + static_cast<int64_t>(b) * inputs, weight + static_cast<int64_t>(o) * inputs, inputs);
    return;
  }
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

void linear_backward(const LinearBackward& op, const Play& play) {
  const int inputs = op.shape.inputs, outputs = op.shape.outputs, count = play.batch.count;
  const float *input = play.at(op.input), *weight = play.at(op.weight), *grad_output = play.at(op.grad_output);
  multiply_rows(grad_output, 1, outputs, outputs, input, inputs, count, play.at(op.grad_weight));
  float* grad_bias = play.at(op.grad_bias);
  for (int o = 0; o < outputs; ++o) grad_bias[o] = 0;
  for (int b = 0; b < count; ++b)
    for (int o = 0; o < outputs; ++o) grad_bias[o] += grad_output[static_cast<int64_t>(b) * outputs + o];
  if (op.grad_input.present()) multiply_rows(grad_output, outputs, 1, count, weight, inputs, outputs, play.at(op.grad_input));
}
