// Convolutions forward, channels last, without a patch matrix. A row of a patch (kernel_width x channels) is contiguous in the image.

KLOPF_FN int64_t padded_size(const ConvShape& s) {
  return static_cast<int64_t>(s.height + 2 * s.padding) * (s.width + 2 * s.padding) * s.channels;
}
KLOPF_FN int row_length(const ConvShape& s) { return s.kernel_width * s.channels; }
KLOPF_FN int row_stride(const ConvShape& s) { return (s.width + 2 * s.padding) * s.channels; }
KLOPF_FN int patch_length(const ConvShape& s) { return s.kernel_height * row_length(s); }

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
