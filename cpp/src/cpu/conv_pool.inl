// Conv2d, ReLU and MaxPool2d at once.

// One block of channels of an image. `Window` is the number of a window's positions where the compiler shall know it, else 0.
template <int Window, class T>
KLOPF_FN void convolve_and_pool(const ConvReluPoolForward& op, const float* image, const float* weights, const BlockBias& bias, T empty,
                                int channels, float* output, uint8_t* position) {
  const ConvShape s = op.shape;
  const int window = Window ? Window : op.window * op.window, pooled = op.pooled_height * op.pooled_width;
  const int together = window <= T::rows ? T::rows / window : 1;  // windows that share a tile
  int64_t inside[Window ? Window : 256];                          // from the window's first patch to the one at a position
  for (int w = 0; w < window; ++w) inside[w] = patch_offset(s, w / op.window, w % op.window);
  for (int p = 0; p < pooled; p += together) {
    const float* corner[T::rows];
    for (int k = 0; k < together; ++k) {
      const int at = p + k < pooled ? p + k : pooled - 1;
      corner[k] = image + patch_offset(s, at / op.pooled_width * op.window, at % op.pooled_width * op.window);
    }
    Maxima<T> best[Window ? T::rows / Window : T::rows];
    for (int w = 0; w < window; w += T::rows) {
      const int rows = window * together - w < T::rows ? window * together - w : T::rows;
      const float* patches[most_rows];
#pragma GCC unroll 8
      for (int i = 0; i < T::rows; ++i) {
        const int at = w + (i < rows ? i : rows - 1);
        patches[i] = corner[at / window] + inside[at % window];
      }
      T tile = empty;
      convolve(s, patches, weights, tile);
#pragma GCC unroll 8
      for (int i = 0; i < T::rows; ++i)
        if (i < rows) best[(w + i) / window].take(tile.at[i], (w + i) % window);
    }
#pragma GCC unroll 8
    for (int k = 0; k < together; ++k)
      if (p + k < pooled)
        best[k].finish(bias, output + static_cast<int64_t>(p + k) * s.outputs, position + static_cast<int64_t>(p + k) * s.outputs,
                       channels);
  }
}

// Floats of work memory, before that of a padded image.
KLOPF_FN int64_t conv_relu_pool_work(const ConvReluPoolForward& op) {
  if (winograd_fits(op)) return winograd_scratch(op.shape);
  if (winograd_rows_fit(op)) return winograd_rows_scratch(op);
  return packed_size(op.shape);
}

void conv_relu_pool_forward(const ConvReluPoolForward& op, const Play& play) {
  const ConvShape s = op.shape;
  const float *weight = play.at(op.weight), *bias = play.at(op.bias), *input = play.at(op.input);
  float *packed = play.at(op.scratch), *buffer = packed + conv_relu_pool_work(op), *output = play.at(op.output);
  uint8_t* position = play.at(op.position);
  if (winograd_fits(op)) return winograd_forward(op, input, weight, bias, play.batch.count, output, position, packed, buffer);
  if (winograd_rows_fit(op)) return winograd_rows_forward(op, input, weight, bias, play.batch.count, output, position, packed, buffer);
  pack_blocks(weight, s.outputs, patch_length(s), packed);
  for (int b = 0; b < play.batch.count; ++b) {
    const float* image = padded_image(s, input + static_cast<int64_t>(b) * s.height * s.width * s.channels, buffer);
    const int64_t to = static_cast<int64_t>(b) * op.pooled_height * op.pooled_width * s.outputs;
    for (int o = 0; o < s.outputs; o += block) {
      const float* weights = packed + static_cast<int64_t>(o) * patch_length(s);
      const BlockBias biases = load_bias(bias, o, s.outputs);
      with_tile(s.outputs - o, [&](auto empty) {
        if (op.window == 2) convolve_and_pool<4>(op, image, weights, biases, empty, s.outputs - o, output + to + o, position + to + o);
        else convolve_and_pool<0>(op, image, weights, biases, empty, s.outputs - o, output + to + o, position + to + o);
      });
    }
  }
}
