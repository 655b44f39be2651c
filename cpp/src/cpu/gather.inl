// Sums over what is not zero: lists of (value, offset), and sums of value * row at offset that stay in registers over a whole list.

struct List {
  float* value;
  int32_t* at;
};

// Appends the lanes whose value is not zero, and returns how many. A whole register may be written.
KLOPF_FN int append(V value, VI at, List to) {
#if defined(__AVX512F__)
  const __mmask16 keep = _mm512_test_epi32_mask(reinterpret_cast<__m512i>(value), _mm512_set1_epi32(0x7FFFFFFF));
  _mm512_storeu_ps(to.value, _mm512_maskz_compress_ps(keep, reinterpret_cast<__m512>(value)));
  _mm512_storeu_si512(to.at, _mm512_maskz_compress_epi32(keep, reinterpret_cast<__m512i>(at)));
  return __builtin_popcount(keep);
#else
  const VI bits = reinterpret_cast<VI>(value) & 0x7FFFFFFF;
  int n = 0;
  for (int i = 0; i < lanes; ++i) {
    to.value[n] = value[i];
    to.at[n] = at[i];
    n += bits[i] != 0;
  }
  return n;
#endif
}

// Adds to Rows rows of Columns registers, which stay in registers over the whole list.
template <class R, int Rows, int Columns>
KLOPF_FN void gather_block(List list, int count, const float* from, int from_stride, float* to, int to_stride) {
  R sum[Rows][Columns];
#pragma GCC unroll 5
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 12
    for (int c = 0; c < Columns; ++c) sum[r][c] = load<R>(to + r * to_stride + c * width_of<R>);
  for (int n = 0; n < count; ++n) {
    const R g = broadcast<R>(list.value[n]);
    const float* x = from + list.at[n];
#pragma GCC unroll 5
    for (int r = 0; r < Rows; ++r, x += from_stride) {
      asm("" : "+r"(x));  // else the compiler keeps a pointer for each register, and runs out of registers for them
#pragma GCC unroll 12
      for (int c = 0; c < Columns; ++c) sum[r][c] = fma(g, load<R>(x + c * width_of<R>), sum[r][c]);
    }
  }
#pragma GCC unroll 5
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 12
    for (int c = 0; c < Columns; ++c) store(to + r * to_stride + c * width_of<R>, sum[r][c]);
}

template <class R, int Columns>
KLOPF_FN void gather_rows(List list, int count, const float* from, int from_stride, float* to, int to_stride, int rows) {
  constexpr int together = Columns <= 2 ? 5 : Columns <= 4 ? 3 : Columns <= 6 ? 2 : 1;
  int r = 0;
  for (; r + together <= rows; r += together)
    gather_block<R, together, Columns>(list, count, from + r * from_stride, from_stride, to + r * to_stride, to_stride);
  for (; r < rows; ++r) gather_block<R, 1, Columns>(list, count, from + r * from_stride, from_stride, to + r * to_stride, to_stride);
}

// to[r][i] += sum over the list of value * from[at + r][i], for `rows` rows of `length` floats (whole registers).
template <class R>
KLOPF_FN void gather(List list, int count, const float* from, int from_stride, float* to, int to_stride, int rows, int length) {
  for (int left = length / width_of<R>; left > 0;) {
    const auto columns = [&]<int n>(Number<n>) {
      gather_rows<R, n>(list, count, from, from_stride, to, to_stride, rows);
      from += n * width_of<R>, to += n * width_of<R>, left -= n;
    };
    if (left >= 12) columns(Number<12>{});
    else if (left >= 8) columns(Number<8>{});
    else if (left >= 6) columns(Number<6>{});
    else if (left >= 5) columns(Number<5>{});
    else if (left >= 4) columns(Number<4>{});
    else if (left >= 3) columns(Number<3>{});
    else if (left >= 2) columns(Number<2>{});
    else columns(Number<1>{});
  }
}
