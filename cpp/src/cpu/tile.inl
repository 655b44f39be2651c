// The register tile under every dense kernel: out[p][v] += sum_l a[p][l * a_step] * b[l * b_step + v] for a few rows p and
// one block of channels v (two registers). Inputs are broadcast, so no patch matrix and no transposed copy is needed.
constexpr int block = 2 * lanes;  // channels of one tile
constexpr int tile_rows = 4;

struct Tile {
  V row[tile_rows][2] = {};
};

template <int Columns>
KLOPF_FN void multiply_add_columns(Tile& tile, const float* const a[tile_rows], int64_t a_step, const float* b, int64_t b_step,
                                   int length) {
  const float *a0 = a[0], *a1 = a[1], *a2 = a[2], *a3 = a[3];
  V t[tile_rows][Columns];
  for (int i = 0; i < tile_rows; ++i)
    for (int c = 0; c < Columns; ++c) t[i][c] = tile.row[i][c];
  for (int l = 0; l < length; ++l) {
    const V x0 = broadcast(*a0), x1 = broadcast(*a1), x2 = broadcast(*a2), x3 = broadcast(*a3);
    for (int c = 0; c < Columns; ++c) {
      const V w = load(b + c * lanes);
      t[0][c] = fma(x0, w, t[0][c]);
      t[1][c] = fma(x1, w, t[1][c]);
      t[2][c] = fma(x2, w, t[2][c]);
      t[3][c] = fma(x3, w, t[3][c]);
    }
    a0 += a_step, a1 += a_step, a2 += a_step, a3 += a_step;
    b += b_step;
  }
  for (int i = 0; i < tile_rows; ++i)
    for (int c = 0; c < Columns; ++c) tile.row[i][c] = t[i][c];
}

// `channels` of the block are wanted: where they fit one register, the second is left alone.
KLOPF_FN void multiply_add(Tile& tile, int channels, const float* const a[tile_rows], int64_t a_step, const float* b, int64_t b_step,
                           int length) {
  if (channels > lanes) multiply_add_columns<2>(tile, a, a_step, b, b_step, length);
  else multiply_add_columns<1>(tile, a, a_step, b, b_step, length);
}

// Stores the first `count` channels of a row.
KLOPF_FN void store_channels(float* out, V low, V high, int count) {
  if (count >= block) {
    store(out, low);
    store(out + lanes, high);
    return;
  }
  float both[block];
  store(both, low);
  store(both + lanes, high);
  for (int i = 0; i < count; ++i) out[i] = both[i];
}

// Weights [outputs, length] packed as [blocks, length, block], zeros beyond the last output.
KLOPF_FN void pack_blocks(const float* weight, int outputs, int length, float* packed) {
  for (int o = 0; o < outputs; o += block) {
    const int valid = outputs - o < block ? outputs - o : block;
    for (int i = 0; i < valid; ++i)
      for (int l = 0; l < length; ++l) packed[static_cast<int64_t>(l) * block + i] = weight[static_cast<int64_t>(o + i) * length + l];
    for (int i = valid; i < block; ++i)
      for (int l = 0; l < length; ++l) packed[static_cast<int64_t>(l) * block + i] = 0;
    packed += static_cast<int64_t>(length) * block;
  }
}

KLOPF_FN void load_bias(const float* bias, int first, int outputs, V& low, V& high) {
  float both[block];
  for (int i = 0; i < block; ++i) both[i] = first + i < outputs ? bias[first + i] : 0.0f;
  low = load(both);
  high = load(both + lanes);
}
