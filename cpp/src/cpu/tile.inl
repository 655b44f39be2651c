// The register tile under every dense kernel: out[p][v] += sum_l a[p][l * a_step] * b[l * b_step + v] for a few rows p and
// one block of channels v (two registers). Inputs are broadcast, so no patch matrix and no transposed copy is needed.
constexpr int block = 2 * lanes;  // channels of one tile
constexpr int tile_rows = 4;

struct Tile {
  V row[tile_rows][2] = {};
};

KLOPF_FN void multiply_add(Tile& tile, const float* const a[tile_rows], int64_t a_step, const float* b, int64_t b_step, int length) {
  const float *a0 = a[0], *a1 = a[1], *a2 = a[2], *a3 = a[3];
  V t00 = tile.row[0][0], t01 = tile.row[0][1], t10 = tile.row[1][0], t11 = tile.row[1][1];
  V t20 = tile.row[2][0], t21 = tile.row[2][1], t30 = tile.row[3][0], t31 = tile.row[3][1];
  for (int l = 0; l < length; ++l) {
    const V b0 = load(b), b1 = load(b + lanes);
    const V x0 = broadcast(*a0), x1 = broadcast(*a1), x2 = broadcast(*a2), x3 = broadcast(*a3);
    t00 = fma(x0, b0, t00), t01 = fma(x0, b1, t01);
    t10 = fma(x1, b0, t10), t11 = fma(x1, b1, t11);
    t20 = fma(x2, b0, t20), t21 = fma(x2, b1, t21);
    t30 = fma(x3, b0, t30), t31 = fma(x3, b1, t31);
    a0 += a_step, a1 += a_step, a2 += a_step, a3 += a_step;
    b += b_step;
  }
  tile.row[0][0] = t00, tile.row[0][1] = t01, tile.row[1][0] = t10, tile.row[1][1] = t11;
  tile.row[2][0] = t20, tile.row[2][1] = t21, tile.row[3][0] = t30, tile.row[3][1] = t31;
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
