// 3x3 convolutions with a quarter to a half of the multiplications (Winograd 1980; Lavin and Gray 2016, F(2x2, 3x3)): a tile of 2x2
// outputs needs 16 products a channel instead of 36, between transformed 4x4 patches and transformed filters. A tile is a pooling
// window. Tiles of all images form the rows of 16 dense products, one for each place in a transformed patch.

constexpr int transformed = 16;
constexpr int tiles_at_once = 32;  // their patches and products stay in the second-level cache

KLOPF_FN bool winograd_fits(const ConvReluPoolForward& op) {
  const ConvShape& s = op.shape;
  return s.kernel_height == 3 && s.kernel_width == 3 && s.stride == 1 && op.window == 2 && s.channels % lanes == 0 &&
         s.outputs % lanes == 0;
}

// Floats of: filters [16, blocks, channels, block], patches [16, tiles, channels], products [16, tiles, block].
KLOPF_FN int64_t winograd_filters(const ConvShape& s) {
  return static_cast<int64_t>(transformed) * round_up(s.outputs, block) * s.channels;
}
KLOPF_FN int64_t winograd_scratch(const ConvShape& s) {
  return winograd_filters(s) + static_cast<int64_t>(transformed) * tiles_at_once * (s.channels + block);
}

// G g G^T for a 3x3 filter g, each number a register of channels.
KLOPF_FN void transform_filter(const V (&g)[9], V (&u)[transformed]) {
  const V half = broadcast(0.5f);
  V rows[4][3];
  for (int x = 0; x < 3; ++x) {
    const V sum = g[x] + g[6 + x];
    rows[0][x] = g[x];
    rows[1][x] = half * (sum + g[3 + x]);
    rows[2][x] = half * (sum - g[3 + x]);
    rows[3][x] = g[6 + x];
  }
  for (int y = 0; y < 4; ++y) {
    const V sum = rows[y][0] + rows[y][2];
    u[4 * y] = rows[y][0];
    u[4 * y + 1] = half * (sum + rows[y][1]);
    u[4 * y + 2] = half * (sum - rows[y][1]);
    u[4 * y + 3] = rows[y][2];
  }
}

// Filters [outputs, 3, 3, channels] to [16, blocks, channels, block].
KLOPF_FN void transform_filters(const ConvShape& s, const float* weight, float* to) {
  const int64_t of_one = static_cast<int64_t>(round_up(s.outputs, block)) * s.channels;
  for (int o = 0; o < s.outputs; o += lanes)
    for (int c = 0; c < s.channels; c += lanes) {
      V u[transformed][lanes];
      for (int i = 0; i < lanes; ++i) {
        V g[9], one[transformed];
        for (int k = 0; k < 9; ++k) g[k] = load(weight + (static_cast<int64_t>(o + i) * 9 + k) * s.channels + c);
        transform_filter(g, one);
        for (int k = 0; k < transformed; ++k) u[k][i] = one[k];
      }
      float* corner = to + static_cast<int64_t>(o / block) * s.channels * block + static_cast<int64_t>(c) * block + o % block;
      for (int k = 0; k < transformed; ++k) {
        transpose<V, VI>(u[k]);
        for (int i = 0; i < lanes; ++i) store(corner + k * of_one + i * block, u[k][i]);
      }
    }
}

// B^T d B for the 4x4 patch at `image`, to [16] places `distance` apart.
KLOPF_FN void transform_patch(const ConvShape& s, const float* image, float* to, int64_t distance) {
  const int row = row_stride(s);
  for (int c = 0; c < s.channels; c += lanes) {
    V d[4][4], t[4][4];
    for (int y = 0; y < 4; ++y)
      for (int x = 0; x < 4; ++x) d[y][x] = load(image + y * row + x * s.channels + c);
    for (int x = 0; x < 4; ++x) {
      t[0][x] = d[0][x] - d[2][x];
      t[1][x] = d[1][x] + d[2][x];
      t[2][x] = d[2][x] - d[1][x];
      t[3][x] = d[1][x] - d[3][x];
    }
    for (int y = 0; y < 4; ++y) {
      float* v = to + 4 * y * distance + c;
      store(v, t[y][0] - t[y][2]);
      store(v + distance, t[y][1] + t[y][2]);
      store(v + 2 * distance, t[y][2] - t[y][1]);
      store(v + 3 * distance, t[y][1] - t[y][3]);
    }
  }
}

// A^T m A: the 2x2 outputs of a tile, for a block of channels.
template <class T>
KLOPF_FN Maxima<T> best_of_tile(const float* products, int64_t distance) {
  V out[4][T::columns];
  for (int c = 0; c < T::columns; ++c) {
    V s[2][4];
    for (int x = 0; x < 4; ++x) {
      const float* m = products + x * distance + c * lanes;
      const V m1 = load(m + 4 * distance), m2 = load(m + 8 * distance);
      s[0][x] = load(m) + m1 + m2;
      s[1][x] = m1 - m2 - load(m + 12 * distance);
    }
    for (int y = 0; y < 2; ++y) {
      out[2 * y][c] = s[y][0] + s[y][1] + s[y][2];
      out[2 * y + 1][c] = s[y][1] - s[y][2] - s[y][3];
    }
  }
  Maxima<T> best;
  for (int w = 0; w < 4; ++w) best.take(out[w], w);
  return best;
}

KLOPF_FN void winograd_forward(const ConvReluPoolForward& op, const float* input, const float* weight, const float* bias, int count,
                               float* output, uint8_t* position, float* scratch, float* padded) {
  const ConvShape s = op.shape;
  const int pooled = op.pooled_height * op.pooled_width;
  const int64_t tiles = static_cast<int64_t>(count) * pooled;
  const int64_t of_one = static_cast<int64_t>(round_up(s.outputs, block)) * s.channels;
  float *filters = scratch, *patches = filters + winograd_filters(s);
  float* products = patches + static_cast<int64_t>(transformed) * tiles_at_once * s.channels;
  const int64_t patch_distance = static_cast<int64_t>(tiles_at_once) * s.channels,
                product_distance = static_cast<int64_t>(tiles_at_once) * block;
  transform_filters(s, weight, filters);
  const float* image = nullptr;
  for (int64_t first = 0; first < tiles; first += tiles_at_once) {
    const int size = tiles - first < tiles_at_once ? static_cast<int>(tiles - first) : tiles_at_once;
    for (int t = 0; t < size; ++t) {
      const int64_t b = (first + t) / pooled;
      const int p = static_cast<int>((first + t) % pooled);
      if (p == 0 || !image) image = padded_image(s, input + b * s.height * s.width * s.channels, padded);
      transform_patch(s, image + patch_offset(s, p / op.pooled_width * 2, p % op.pooled_width * 2),
                      patches + static_cast<int64_t>(t) * s.channels, patch_distance);
    }
    for (int o = 0; o < s.outputs; o += block) {
      const BlockBias biases = load_bias(bias, o, s.outputs);
      const auto block_of_channels = [&](auto empty) {
        using T = decltype(empty);
        for (int k = 0; k < transformed; ++k)
          for (int t = 0; t < size; t += T::rows) {
            const float* rows[most_rows];
            for (int i = 0; i < T::rows; ++i)
              rows[i] = patches + k * patch_distance + static_cast<int64_t>(t + i < size ? t + i : size - 1) * s.channels;
            T tile = empty;
            multiply_add(tile, rows, 1, filters + k * of_one + static_cast<int64_t>(o) * s.channels, block, s.channels);
            float* to = products + k * product_distance + static_cast<int64_t>(t) * block;
            for (int i = 0; i < T::rows; ++i)
              for (int c = 0; c < T::columns; ++c) store(to + i * block + c * lanes, tile.at[i][c]);
          }
        for (int t = 0; t < size; ++t) {
          const int64_t at = (first + t) * s.outputs + o;
          best_of_tile<T>(products + static_cast<int64_t>(t) * block, product_distance)
              .finish(biases, output + at, position + at, s.outputs - o);
        }
      };
      if (s.outputs - o > lanes) block_of_channels(Tile<V, 4, 2>{});
      else block_of_channels(Tile<V, 8, 1>{});
    }
  }
}
