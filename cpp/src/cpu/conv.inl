// Convolutions forward, channels last, without a patch matrix. A row of a patch (kernel_width x channels) is contiguous in the image.

KLOPF_FN int64_t padded_size(const ConvShape& s) {
  return static_cast<int64_t>(s.height + 2 * s.padding) * (s.width + 2 * s.padding) * s.channels;
}
KLOPF_FN int row_length(const ConvShape& s) { return s.kernel_width * s.channels; }
KLOPF_FN int row_stride(const ConvShape& s) { return (s.width + 2 * s.padding) * s.channels; }
KLOPF_FN int patch_length(const ConvShape& s) { return s.kernel_height * row_length(s); }
KLOPF_FN int round_up(int n, int to) { return (n + to - 1) / to * to; }
KLOPF_FN int64_t round_up64(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// The image with zeros around it, or the image itself where there is no padding.
KLOPF_FN const float* padded_image(const ConvShape& s, const float* image, float* buffer) {
  if (s.padding == 0) return image;
  const int64_t size = padded_size(s), row = static_cast<int64_t>(s.width) * s.channels;
  for (int64_t i = 0; i < size; ++i) buffer[i] = 0;
  for (int y = 0; y < s.height; ++y) {
    float* to = buffer + static_cast<int64_t>(y + s.padding) * row_stride(s) + s.padding * s.channels;
    for (int64_t i = 0; i < row; ++i) to[i] = image[y * row + i];
  }
  return buffer;
}

template <class T>
KLOPF_FN void convolve(const ConvShape& s, const float* const patches[most_rows], const float* packed, T& tile) {
  const int length = row_length(s), stride = row_stride(s);
  const float* at[most_rows];
  for (int i = 0; i < tile.rows; ++i) at[i] = patches[i];
  for (int ky = 0; ky < s.kernel_height; ++ky) {
    multiply_add(tile, at, 1, packed, block, length);
    packed += static_cast<int64_t>(length) * block;
    for (int i = 0; i < tile.rows; ++i) at[i] += stride;
  }
}

KLOPF_FN int64_t patch_offset(const ConvShape& s, int y, int x) {
  return (static_cast<int64_t>(y) * s.stride * (s.width + 2 * s.padding) + static_cast<int64_t>(x) * s.stride) * s.channels;
}

KLOPF_FN int64_t packed_size(const ConvShape& s) { return static_cast<int64_t>(round_up(s.outputs, block)) * patch_length(s); }

void conv_forward(const ConvForward& op, const Play& play) {
  const ConvShape s = op.shape;
  const float *weight = play.at(op.weight), *bias = play.at(op.bias), *input = play.at(op.input);
  float *packed = play.at(op.scratch), *buffer = packed + packed_size(s), *output = play.at(op.output);
  pack_blocks(weight, s.outputs, patch_length(s), packed);
  const int pixels = s.out_height * s.out_width;
  for (int b = 0; b < play.batch.count; ++b) {
    const float* image = padded_image(s, input + static_cast<int64_t>(b) * s.height * s.width * s.channels, buffer);
    for (int o = 0; o < s.outputs; o += block) {
      const BlockBias biases = load_bias(bias, o, s.outputs);
      with_tile(s.outputs - o, [&](auto empty) {
        for (int p = 0; p < pixels; p += empty.rows) {
          const float* patches[most_rows];
          for (int i = 0; i < empty.rows; ++i) {
            const int pixel = p + i < pixels ? p + i : pixels - 1;
            patches[i] = image + patch_offset(s, pixel / s.out_width, pixel % s.out_width);
          }
          auto tile = empty;
          convolve(s, patches, packed + static_cast<int64_t>(o) * patch_length(s), tile);
          add_bias(tile, biases);
          for (int i = 0; i < empty.rows && p + i < pixels; ++i)
            store_channels(output + (static_cast<int64_t>(b) * pixels + p + i) * s.outputs + o, tile.at[i], s.outputs - o);
        }
      });
    }
  }
}

// The maxima of a window so far, and their positions in it.
template <class T>
struct Maxima {
  using R = typename T::R;
  using I = decltype(R{} < R{});
  R value[T::columns];
  I position[T::columns] = {};
  KLOPF_MEMBER_FN Maxima() {
    for (int c = 0; c < T::columns; ++c) value[c] = broadcast<R>(-__builtin_inff());
  }
  KLOPF_MEMBER_FN void take(const R (&row)[T::columns], int position_of_row) {
    for (int c = 0; c < T::columns; ++c) {
      const I keep = row[c] <= value[c];  // false for NaN, which so wins
      value[c] = keep ? value[c] : row[c];
      position[c] = keep ? position[c] : I{} + position_of_row;
    }
  }
  // Adds the bias, applies ReLU, and stores the first `count` channels.
  KLOPF_MEMBER_FN void finish(const BlockBias& bias, float* output, uint8_t* positions, int count) {
    typedef uint8_t Narrow __attribute__((vector_size(width_of<R>)));
    uint8_t bytes[block];
    for (int c = 0; c < T::columns; ++c) {
      value[c] += load<R>(bias.value + c * width_of<R>);
      const I shut = value[c] <= R{};
      value[c] = relu(value[c]);
      const Narrow narrow = __builtin_convertvector(shut ? I{} + int32_t{no_position} : position[c], Narrow);
      __builtin_memcpy(bytes + c * width_of<R>, &narrow, sizeof(narrow));
    }
    store_channels(output, value, count);
    if (count >= T::columns * width_of<R>) __builtin_memcpy(positions, bytes, T::columns * sizeof(Narrow));
    else
      for (int i = 0; i < count; ++i) positions[i] = bytes[i];
  }
};

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

void conv_relu_pool_forward(const ConvReluPoolForward& op, const Play& play) {
  const ConvShape s = op.shape;
  const float *weight = play.at(op.weight), *bias = play.at(op.bias), *input = play.at(op.input);
  float *packed = play.at(op.scratch), *buffer = packed + packed_size(s), *output = play.at(op.output);
  uint8_t* position = play.at(op.position);
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
