// The register tile under every dense kernel: out[p][v] += sum_l a[p][l * a_step] * b[l * b_step + v] for a few rows p and
// one block of channels v. Inputs are broadcast, so no patch matrix and no transposed copy is needed. Eight sums are under way
// at once: a multiplication waits for nothing.
constexpr int block = 2 * lanes;  // channels of one tile

template <class Register, int rows_, int columns_>
struct Tile {
  using R = Register;
  static constexpr int rows = rows_, columns = columns_;
  R at[rows][columns] = {};
};
constexpr int most_rows = 8;

// Calls visit(empty tile) with the shape for a block of which `channels` are wanted.
template <class Visit>
KLOPF_FN void with_tile(int channels, Visit visit) {
  if (channels > lanes) visit(Tile<V, 4, 2>{});
  else if (channels > half_lanes) visit(Tile<V, 8, 1>{});
  else visit(Tile<H, 8, 1>{});
}

template <class T>
KLOPF_FN void multiply_add(T& tile, const float* const a[most_rows], int64_t a_step, const float* b, int64_t b_step, int length) {
  using R = typename T::R;
  T t = tile;
  int64_t offset = 0;
#pragma GCC unroll 4
  for (int l = 0; l < length; ++l, offset += a_step, b += b_step) {
    R w[T::columns];
#pragma GCC unroll 2
    for (int c = 0; c < T::columns; ++c) w[c] = load<R>(b + c * width_of<R>);
#pragma GCC unroll 8
    for (int i = 0; i < T::rows; ++i) {
      const R x = broadcast<R>(a[i][offset]);
#pragma GCC unroll 2
      for (int c = 0; c < T::columns; ++c) t.at[i][c] = fma(x, w[c], t.at[i][c]);
    }
  }
  tile = t;
}

// Stores all rows, a block apart.
template <class T>
KLOPF_FN void store_rows(float* to, const T& tile) {
  for (int i = 0; i < T::rows; ++i)
    for (int c = 0; c < T::columns; ++c) store(to + i * block + c * width_of<typename T::R>, tile.at[i][c]);
}

// Stores the first `count` channels of a row.
template <class R, int columns>
KLOPF_FN void store_channels(float* out, const R (&row)[columns], int count) {
  if (count >= columns * width_of<R>) {
    for (int c = 0; c < columns; ++c) store(out + c * width_of<R>, row[c]);
    return;
  }
  for (int c = 0; c < columns; ++c) {
    const int left = count - c * width_of<R>;
    if (left >= width_of<R>) store(out + c * width_of<R>, row[c]);
    else if (left > 0) store_first(out + c * width_of<R>, row[c], left);
  }
}

// Weights [outputs, length] packed as [blocks, length, block], zeros beyond the last output.
KLOPF_FN void pack_blocks(const float* weight, int outputs, int length, float* packed) {
  for (int o = 0; o < outputs; o += block, packed += static_cast<int64_t>(length) * block) {
    const int valid = outputs - o < block ? outputs - o : block;
    for (int i = 0; i < block; i += lanes)
      for (int l = 0; l < length; l += lanes) {
        const int left = length - l;
        V row[lanes];
#pragma GCC unroll 16
        for (int k = 0; k < lanes; ++k) {
          const float* from = weight + static_cast<int64_t>(o + i + k) * length + l;
          row[k] = i + k >= valid ? V{} : left < lanes ? load_first(from, left) : load(from);
        }
        transpose<V, VI>(row);
        for (int k = 0; k < lanes && k < left; ++k) store(packed + static_cast<int64_t>(l + k) * block + i, row[k]);
      }
  }
}

// The biases of a block's channels, zeros beyond the last output.
struct BlockBias {
  float value[block];
};
KLOPF_FN BlockBias load_bias(const float* bias, int first, int outputs) {
  BlockBias all;
  for (int i = 0; i < block; ++i) all.value[i] = first + i < outputs ? bias[first + i] : 0.0f;
  return all;
}
template <class T>
KLOPF_FN void add_bias(T& tile, const BlockBias& bias) {
  for (int c = 0; c < T::columns; ++c) {
    const auto b = load<typename T::R>(bias.value + c * width_of<typename T::R>);
    for (int i = 0; i < T::rows; ++i) tile.at[i][c] += b;
  }
}
