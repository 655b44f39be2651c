// Dense products whose left factor holds many zeros, as behind ReLU: out[r] = sum_l a[r][l] * b[l], over those l where a is not zero. The
// rows of b are taken a slice of columns and as many rows at a time as fit the first-level cache, copied together; the places that
// are not zero in these rows are listed once for all slices. Zeros left out change no bit of a sum (those
// times infinity and NaN apart), so that the choice between this and the dense product may look at the numbers.
constexpr int slice_columns = 8 * lanes;  // sums of a row under way at once
constexpr int listed_rows = 768 / lanes;  // of b: 24 KiB of a slice
constexpr int rows_together = 128;        // of a and out
constexpr float dense_enough = 0.65f;     // share of values that are not zero, above which the dense product is faster

KLOPF_FN bool can_be_sparse(int columns) { return columns >= 4 * lanes; }

// A matrix by the distances of its rows and of its columns, one of which is 1.
struct Matrix {
  const float* at;
  int64_t row, column;
};

// Whether at most `dense_enough` of a, [rows, length], are not zero.
KLOPF_FN bool is_sparse(const Matrix& a, int rows, int length) {
  const int across = a.column == 1 ? length : rows, down = a.column == 1 ? rows : length;
  const int64_t distance = a.column == 1 ? a.row : a.column;
  VI zeros{};
  for (int r = 0; r < down; ++r)
    for (int i = 0; i + lanes <= across; i += lanes) zeros -= load(a.at + r * distance + i) == V{};
  int64_t all = 0;
  for (int i = 0; i < lanes; ++i) all += zeros[i];
  return static_cast<float>(all) >= (1 - dense_enough) * static_cast<float>(static_cast<int64_t>(across) * down);
}

// The places of a few rows of a that are not zero.
struct RowLists {
  float values[rows_together][listed_rows + lanes];
  int32_t ats[rows_together][listed_rows + lanes];
  int32_t counts[rows_together];

  KLOPF_MEMBER_FN List list(int r) { return {values[r], ats[r]}; }
  KLOPF_MEMBER_FN void add(int r, V value, VI at) { counts[r] += append(value, at, {values[r] + counts[r], ats[r] + counts[r]}); }

  KLOPF_MEMBER_FN void fill(const Matrix& a, int first, int rows, int from, int length) {
    VI lane{};
    for (int i = 0; i < lanes; ++i) lane[i] = i * slice_columns;
    for (int r = 0; r < rows; ++r) counts[r] = 0;
    if (a.column == 1) {
      for (int r = 0; r < rows; ++r) {
        const float* row = a.at + (first + r) * a.row + from;
        for (int l = 0; l < length; l += lanes)
          add(r, length - l < lanes ? load_first(row + l, length - l) : load(row + l), lane + l * slice_columns);
      }
      return;
    }
    for (int l = 0; l < length; l += lanes)
      for (int r = 0; r < rows; r += lanes) {
        V part[lanes];
#pragma GCC unroll 16
        for (int i = 0; i < lanes; ++i) {
          const float* p = a.at + (from + l + i) * a.column + first + r;
          part[i] = l + i >= length ? V{} : rows - r < lanes ? load_first(p, rows - r) : load(p);
        }
        transpose<V, VI>(part);
        for (int i = 0; i < lanes && r + i < rows; ++i) add(r + i, part[i], lane + l * slice_columns);
      }
  }
};

// b[l][v] for some rows and the columns of a slice, zeros beyond the last column.
KLOPF_FN void copy_slice_of(const Matrix& b, int from, int length, int first, int columns, float* to) {
  const int padded = round_up(columns, lanes);
  if (b.column == 1) {
    for (int l = 0; l < length; ++l, to += slice_columns)
      for_lanes(columns, [&](int v, auto get, auto) { store(to + v, get(b.at + (from + l) * b.row + first + v)); });
    return;
  }
  for (int l = 0; l < length; l += lanes)
    for (int v = 0; v < padded; v += lanes) {
      V part[lanes];
#pragma GCC unroll 16
      for (int i = 0; i < lanes; ++i) {
        const float* p = b.at + (first + v + i) * b.column + from + l;
        part[i] = v + i >= columns ? V{} : length - l < lanes ? load_first(p, length - l) : load(p);
      }
      transpose<V, VI>(part);
      for (int i = 0; i < lanes && l + i < length; ++i) store(to + (l + i) * slice_columns + v, part[i]);
    }
}

// out [rows, columns] = a [rows, length] b [length, columns], plus bias where there is one.
KLOPF_FN void multiply_sparse(const Matrix& a, int rows, const Matrix& b, int columns, int length, const float* bias, float* out) {
  RowLists lists;
  alignas(64) float slice[listed_rows * slice_columns];
  alignas(64) float sums[slice_columns];
  for (int first = 0; first < rows; first += rows_together) {
    const int some = rows - first < rows_together ? rows - first : rows_together;
    for (int from = 0; from < length; from += listed_rows) {
      const int listed = length - from < listed_rows ? length - from : listed_rows;
      lists.fill(a, first, some, from, listed);
      for (int v = 0; v < columns; v += slice_columns) {
        const int width = columns - v < slice_columns ? columns - v : slice_columns, padded = round_up(width, lanes);
        copy_slice_of(b, from, listed, v, width, slice);
        for (int r = 0; r < some; ++r) {
          float* to = out + static_cast<int64_t>(first + r) * columns + v;
          float* at = width == padded ? to : sums;
          if (from == 0)
            for (int i = 0; i < padded; i += lanes) store(at + i, V{});
          else if (at != to) for_lanes(width, [&](int i, auto get, auto) { store(at + i, get(to + i)); });
          gather<V>(lists.list(r), lists.counts[r], slice, 0, at, 0, 1, padded);
          const bool add = bias && from + listed == length;
          if (add || at != to)
            for_lanes(width, [&](int i, auto get, auto put) { put(to + i, add ? load(at + i) + get(bias + v + i) : load(at + i)); });
        }
      }
    }
  }
}
