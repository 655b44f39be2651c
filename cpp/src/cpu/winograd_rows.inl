// Convolutions of five rows before 2x2 max pooling by Winograd's method in one direction (F(2, 5)): down a column six products a channel
// for two outputs, one above the other, instead of ten; along a row as they are. For any number of channels, so also the first layer of
// images. Two rows of outputs, those of a row of pooling windows, come from six dense products whose rows are the places along a row.

KLOPF_FN bool winograd_rows_fit(const ConvReluPoolForward& op) {
  const ConvShape& s = op.shape;
  return s.kernel_height == 5 && s.stride == 1 && op.window == 2 && s.outputs >= lanes;
}

// Scratch memory, cut into arrays.
struct WinogradRows {
  int length, row, width;  // floats of a filter's row, of an image's; outputs of a row that are pooled
  int64_t filter_distance, packed_distance, product_distance, floats = 0;
  float *filters, *packed, *sums, *products;  // [6, outputs, length], [6, blocks, length, block], [6, row], [6, width, block]
  KLOPF_MEMBER_FN WinogradRows(const ConvReluPoolForward& op, float* memory)
      : length(row_length(op.shape)), row(row_stride(op.shape)), width(2 * op.pooled_width) {
    filter_distance = static_cast<int64_t>(op.shape.outputs) * length;
    packed_distance = static_cast<int64_t>(round_up(op.shape.outputs, block)) * length;
    product_distance = static_cast<int64_t>(round_up(width, most_rows)) * block;
    const auto take = [&](int64_t count) { return memory + (floats += round_up(count, 16)) - round_up(count, 16); };
    filters = take(points * filter_distance);
    packed = take(points * packed_distance);
    sums = take(static_cast<int64_t>(points) * row);
    products = take(points * product_distance);
  }
};
KLOPF_FN int64_t winograd_rows_scratch(const ConvReluPoolForward& op) { return WinogradRows(op, nullptr).floats; }

// G g for the columns of filters [outputs, 5, length], packed.
KLOPF_FN void transform_filter_columns(const WinogradRows& m, int outputs, const float* weight) {
  for (int o = 0; o < outputs; ++o, weight += 5 * m.length)
    for_lanes(m.length, [&](int i, auto get, auto put) {
      V g[5], u[points];
      for (int k = 0; k < 5; ++k) g[k] = get(weight + k * m.length + i);
      sums_of_filter(g, u);
      for (int k = 0; k < points; ++k) put(m.filters + k * m.filter_distance + static_cast<int64_t>(o) * m.length + i, u[k]);
    });
  for (int k = 0; k < points; ++k) pack_blocks(m.filters + k * m.filter_distance, outputs, m.length, m.packed + k * m.packed_distance);
}

// B^T d for six rows of the image.
KLOPF_FN void transform_rows(const WinogradRows& m, const float* image) {
  for_lanes(m.row, [&](int i, auto get, auto put) {
    V d[points], t[points];
    for (int k = 0; k < points; ++k) d[k] = get(image + k * m.row + i);
    sums_of_pixels(d, t);
    for (int k = 0; k < points; ++k) put(m.sums + k * m.row + i, t[k]);
  });
}

// A^T m at two neighbouring places: the outputs of a window, for a block of channels.
template <class T>
KLOPF_FN Maxima<T> best_of_columns(const WinogradRows& m, const float* products) {
  using R = typename T::R;
  R out[4][T::columns];
  for (int x = 0; x < 2; ++x, products += block)
    for (int c = 0; c < T::columns; ++c) {
      R p[points], column[2];
      for (int k = 0; k < points; ++k) p[k] = load<R>(products + k * m.product_distance + c * width_of<R>);
      outputs_of(p, column);
      out[x][c] = column[0];
      out[2 + x][c] = column[1];
    }
  Maxima<T> best;
  for (int w = 0; w < 4; ++w) best.take(out[w], w);
  return best;
}

KLOPF_FN void winograd_rows_forward(const ConvReluPoolForward& op, const float* input, const float* weight, const float* bias, int count,
                                    float* output, uint8_t* position, float* scratch, float* padded) {
  const ConvShape s = op.shape;
  const WinogradRows m(op, scratch);
  transform_filter_columns(m, s.outputs, weight);
  for (int b = 0; b < count; ++b) {
    const float* image = padded_image(s, input + static_cast<int64_t>(b) * s.height * s.width * s.channels, padded);
    for (int y = 0; y < op.pooled_height; ++y, output += op.pooled_width * s.outputs, position += op.pooled_width * s.outputs) {
      transform_rows(m, image + 2 * y * m.row);
      for (int o = 0; o < s.outputs; o += block) {
        const BlockBias biases = load_bias(bias, o, s.outputs);
        with_tile(s.outputs - o, [&](auto empty) {
          using T = decltype(empty);
          for (int k = 0; k < points; ++k)
            for (int x = 0; x < m.width; x += T::rows) {
              const float* rows[most_rows];
              for (int i = 0; i < T::rows; ++i) rows[i] = m.sums + k * m.row + (x + i < m.width ? x + i : m.width - 1) * s.channels;
              T tile = empty;
              multiply_add(tile, rows, 1, m.packed + k * m.packed_distance + static_cast<int64_t>(o) * m.length, block, m.length);
              store_rows(m.products + k * m.product_distance + static_cast<int64_t>(x) * block, tile);
            }
          for (int x = 0; x < op.pooled_width; ++x)
            best_of_columns<T>(m, m.products + 2 * x * block)
                .finish(biases, output + x * s.outputs + o, position + x * s.outputs + o, s.outputs - o);
        });
      }
    }
  }
}
