// Convolutions with fewer multiplications (Winograd 1980; Lavin and Gray 2016), before 2x2 max pooling, at the points 0, 1, -1, 2, -2 and
// infinity: products of sums of six pixels and sums of a filter's column are sums of the outputs, however many pixels these need. In both
// directions four outputs of a filter of three (F(4x4, 3x3): 36 products a channel for 16 outputs instead of 144), here; in one direction
// two outputs of a filter of five, in winograd_rows.inl.

constexpr int points = 6;

// B^T d: of six pixels.
template <class R>
KLOPF_FN void sums_of_pixels(const R (&d)[points], R (&t)[points]) {
  const R even1 = d[4] - 4 * d[2], odd1 = d[3] - 4 * d[1], even2 = d[4] - d[2], odd2 = 2 * (d[3] - d[1]);
  t[0] = 4 * (d[0] - d[2]) + even2;
  t[1] = even1 + odd1;
  t[2] = even1 - odd1;
  t[3] = even2 + odd2;
  t[4] = even2 - odd2;
  t[5] = 4 * (d[1] - d[3]) + (d[5] - d[3]);
}

// G g: of a filter's row or column of `length` numbers.
template <int length, class R>
KLOPF_FN void sums_of_filter(const R (&g)[length], R (&u)[points]) {
  R even1 = g[0] + g[2], odd1 = g[1], even2 = g[0] + 4 * g[2], odd2 = 2 * g[1];
  if constexpr (length == 5) even1 += g[4], odd1 += g[3], even2 += 16 * g[4], odd2 += 8 * g[3];
  constexpr float sixth = -1 / 6.0f, of_24 = 1 / 24.0f;
  u[0] = 0.25f * g[0];
  u[1] = sixth * (even1 + odd1);
  u[2] = sixth * (even1 - odd1);
  u[3] = of_24 * (even2 + odd2);
  u[4] = of_24 * (even2 - odd2);
  u[5] = g[length - 1];
}

// A^T m: `count` outputs, one beside the other, from the six products.
template <int count, class R>
KLOPF_FN void outputs_of(const R (&m)[points], R (&out)[count]) {
  const R even1 = m[1] + m[2], odd1 = m[1] - m[2], even2 = m[3] + m[4], odd2 = m[3] - m[4];
  out[0] = m[0] + even1 + even2;
  out[1] = odd1 + 2 * odd2;
  if constexpr (count == 4) out[2] = even1 + 4 * even2, out[3] = odd1 + 8 * odd2;
  out[count - 1] += m[5];
}

// The rest is the 3x3 convolution. A tile of 4x4 outputs is four pooling windows; the last of a row or column may overlap the one before.
// Tiles of all images form the rows of 36 dense products, one for each place in a transformed patch.
constexpr int transformed = points * points;
constexpr int tile_windows = 2;    // in each direction
constexpr int tiles_at_once = 16;  // their patches and products stay in the second-level cache

KLOPF_FN bool winograd_fits(const ConvReluPoolForward& op) {
  const ConvShape& s = op.shape;
  return s.kernel_height == 3 && s.kernel_width == 3 && s.stride == 1 && op.window == 2 && s.channels % lanes == 0 &&
         s.outputs % lanes == 0 && op.pooled_height >= tile_windows && op.pooled_width >= tile_windows;
}

// Scratch memory, cut into arrays. The 36 places lie a little more than their size apart: at powers of two they would share cache sets.
struct WinogradTiles {
  int64_t filter_distance, patch_distance, product_distance;
  float *filters, *patches, *products;  // [36, blocks, channels, block], [36, tiles, channels], [36, tiles, block]
  KLOPF_MEMBER_FN WinogradTiles(const ConvShape& s, float* memory)
      : filter_distance(static_cast<int64_t>(round_up(s.outputs, block)) * s.channels + 16),
        patch_distance(static_cast<int64_t>(tiles_at_once) * s.channels + 16),
        product_distance(static_cast<int64_t>(tiles_at_once) * block + 16),
        filters(memory),
        patches(filters + transformed * filter_distance),
        products(patches + transformed * patch_distance) {}
  KLOPF_MEMBER_FN int64_t floats() const { return transformed * (filter_distance + patch_distance + product_distance); }
};
KLOPF_FN int64_t winograd_scratch(const ConvShape& s) { return WinogradTiles(s, nullptr).floats(); }

// G g G^T for filters [outputs, 3, 3, channels], to [36, blocks, channels, block].
KLOPF_FN void transform_filters(const ConvShape& s, const float* weight, const WinogradTiles& m) {
  for (int o = 0; o < s.outputs; o += lanes)
    for (int c = 0; c < s.channels; c += lanes) {
      V turned[9][lanes];  // [place in the filter, channel], each a register of outputs
      for (int k = 0; k < 9; ++k) {
#pragma GCC unroll 16
        for (int i = 0; i < lanes; ++i) turned[k][i] = load(weight + (static_cast<int64_t>(o + i) * 9 + k) * s.channels + c);
        transpose<V, VI>(turned[k]);
      }
      float* to = m.filters + static_cast<int64_t>(o / block) * s.channels * block + static_cast<int64_t>(c) * block + o % block;
      for (int i = 0; i < lanes; ++i, to += block) {
        V half[points][3];  // [sum of rows, column]
        for (int x = 0; x < 3; ++x) {
          const V g[3] = {turned[x][i], turned[3 + x][i], turned[6 + x][i]};
          V u[points];
          sums_of_filter(g, u);
          for (int y = 0; y < points; ++y) half[y][x] = u[y];
        }
        for (int y = 0; y < points; ++y) {
          V u[points];
          sums_of_filter(half[y], u);
          for (int x = 0; x < points; ++x) store(to + (points * y + x) * m.filter_distance, u[x]);
        }
      }
    }
}

// B^T d B for the 6x6 patch at `image`, to [36] places `distance` apart.
KLOPF_FN void transform_patch(const ConvShape& s, const float* image, float* to, int64_t distance) {
  const int row = row_stride(s);
  for (int c = 0; c < s.channels; c += lanes) {
    V half[points][points];  // [sum of rows, column]
    for (int x = 0; x < points; ++x) {
      V d[points], t[points];
      for (int y = 0; y < points; ++y) d[y] = load(image + y * row + x * s.channels + c);
      sums_of_pixels(d, t);
      for (int y = 0; y < points; ++y) half[y][x] = t[y];
    }
    for (int y = 0; y < points; ++y) {
      V t[points];
      sums_of_pixels(half[y], t);
      for (int x = 0; x < points; ++x) store(to + (points * y + x) * distance + c, t[x]);
    }
  }
}

// A^T m A: the 4x4 outputs of a tile, and the best of each of its four windows, for a block of channels.
template <class T>
struct TileMaxima {
  Maxima<T> of[tile_windows][tile_windows];
  KLOPF_MEMBER_FN TileMaxima(const float* products, int64_t distance) {
    V out[4][4][T::columns];
    for (int c = 0; c < T::columns; ++c) {
      V half[4][points];  // [row of outputs, column of products]
      for (int x = 0; x < points; ++x) {
        V m[points], rows[4];
        for (int y = 0; y < points; ++y) m[y] = load(products + (points * y + x) * distance + c * lanes);
        outputs_of(m, rows);
        for (int y = 0; y < 4; ++y) half[y][x] = rows[y];
      }
      for (int y = 0; y < 4; ++y) {
        V columns[4];
        outputs_of(half[y], columns);
        for (int x = 0; x < 4; ++x) out[y][x][c] = columns[x];
      }
    }
    for (int y = 0; y < 4; ++y)
      for (int x = 0; x < 4; ++x) of[y / 2][x / 2].take(out[y][x], y % 2 * 2 + x % 2);
  }
};

KLOPF_FN void winograd_forward(const ConvReluPoolForward& op, const float* input, const float* weight, const float* bias, int count,
                               float* output, uint8_t* position, float* scratch, float* padded) {
  const ConvShape s = op.shape;
  const int tiles_down = (op.pooled_height + 1) / tile_windows, tiles_across = (op.pooled_width + 1) / tile_windows;
  const int of_image = tiles_down * tiles_across;
  const int64_t tiles = static_cast<int64_t>(count) * of_image;
  const WinogradTiles m(s, scratch);
  transform_filters(s, weight, m);
  const float* image = nullptr;
  struct Place {
    int64_t image;
    int y, x;  // of the first window
  } place[tiles_at_once];
  for (int64_t first = 0; first < tiles; first += tiles_at_once) {
    const int size = tiles - first < tiles_at_once ? static_cast<int>(tiles - first) : tiles_at_once;
    for (int t = 0; t < size; ++t) {
      const int64_t b = (first + t) / of_image;
      const int p = static_cast<int>((first + t) % of_image), y = p / tiles_across * tile_windows, x = p % tiles_across * tile_windows;
      place[t] = {b, y < op.pooled_height - tile_windows ? y : op.pooled_height - tile_windows,
                  x < op.pooled_width - tile_windows ? x : op.pooled_width - tile_windows};
      if (p == 0 || !image) image = padded_image(s, input + b * s.height * s.width * s.channels, padded);
      transform_patch(s, image + patch_offset(s, place[t].y * 2, place[t].x * 2), m.patches + static_cast<int64_t>(t) * s.channels,
                      m.patch_distance);
    }
    for (int o = 0; o < s.outputs; o += block) {
      const BlockBias biases = load_bias(bias, o, s.outputs);
      const auto block_of_channels = [&](auto empty) {
        using T = decltype(empty);
        for (int k = 0; k < transformed; ++k)
          for (int t = 0; t < size; t += T::rows) {
            const float* rows[most_rows];
            for (int i = 0; i < T::rows; ++i)
              rows[i] = m.patches + k * m.patch_distance + static_cast<int64_t>(t + i < size ? t + i : size - 1) * s.channels;
            T tile = empty;
            multiply_add(tile, rows, 1, m.filters + k * m.filter_distance + static_cast<int64_t>(o) * s.channels, block, s.channels);
            store_rows(m.products + k * m.product_distance + static_cast<int64_t>(t) * block, tile);
          }
        for (int t = 0; t < size; ++t) {
          TileMaxima<T> best(m.products + static_cast<int64_t>(t) * block, m.product_distance);
          for (int y = 0; y < tile_windows; ++y)
            for (int x = 0; x < tile_windows; ++x) {
              const int64_t window = (place[t].image * op.pooled_height + place[t].y + y) * op.pooled_width + place[t].x + x;
              best.of[y][x].finish(biases, output + window * s.outputs + o, position + window * s.outputs + o, s.outputs - o);
            }
        }
      };
      if (s.outputs - o > lanes) block_of_channels(Tile<V, 4, 2>{});
      else block_of_channels(Tile<V, 8, 1>{});
    }
  }
}
