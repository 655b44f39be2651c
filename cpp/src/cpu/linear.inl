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
    V low, high;
    load_bias(bias, o, outputs, low, high);
    for (int b = 0; b < count; b += tile_rows) {
      const float* rows[tile_rows];
      for (int i = 0; i < tile_rows; ++i) rows[i] = input + static_cast<int64_t>(b + i < count ? b + i : count - 1) * inputs;
      Tile tile;
      multiply_add(tile, outputs - o, rows, 1, packed, block, inputs);
      for (int i = 0; i < tile_rows && b + i < count; ++i)
        store_channels(output + static_cast<int64_t>(b + i) * outputs + o, tile.row[i][0] + low, tile.row[i][1] + high, outputs - o);
    }
  }
}

// out[rows, columns] = a^T-or-a times b: out[r][v] = sum_l a[r * a_row + l * a_step] * b[l * columns + v].
KLOPF_FN void multiply_rows(const float* a, int64_t a_row, int64_t a_step, int rows, const float* b, int columns, int length, float* out) {
  for (int r = 0; r < rows; r += tile_rows) {
    const float* at[tile_rows];
    for (int i = 0; i < tile_rows; ++i) at[i] = a + a_row * (r + i < rows ? r + i : rows - 1);
    for (int v = 0; v < columns; v += block) {
      Tile tile;
      multiply_add(tile, columns - v, at, a_step, b + v, columns, length);
      for (int i = 0; i < tile_rows && r + i < rows; ++i)
        store_channels(out + static_cast<int64_t>(r + i) * columns + v, tile.row[i][0], tile.row[i][1], columns - v);
    }
  }
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
