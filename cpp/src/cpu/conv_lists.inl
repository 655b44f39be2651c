// Which places of a convolution's output have a gradient that is not zero: behind ReLU and 2x2 max pooling at most a quarter. Lists of
// (gradient, offset), for each filter over the places of some images, and for each output pixel over the filters.

// table[index] for each lane, where indices are below 256 and those that matter below `size`.
KLOPF_FN VI look_up(const int32_t* table, [[maybe_unused]] int size, VI index) {
#if defined(__AVX512F__)  // with a mask: without one, GCC 12 warns of its own header
  if (size <= lanes)
    return reinterpret_cast<VI>(_mm512_maskz_permutexvar_epi32(0xFFFF, reinterpret_cast<__m512i>(index), _mm512_loadu_si512(table)));
#endif
  VI found;
  for (int i = 0; i < lanes; ++i) found[i] = table[index[i]];
  return found;
}

// The gradient of a convolution's output, or of what max pooling made of it: `rows` places of all images together, [rows, filters].
struct OutputGradient {
  const float* grad;
  const uint8_t* position;  // of the maximum in its window; absent where there is no pooling
  int filters;
  // `lanes` filters of a place, 0 where the maximum let nothing through; w: the positions.
  KLOPF_MEMBER_FN V load_place(int64_t place, int filter, Bytes& w) const {
    V g = load(grad + place * filters + filter);
    w = Bytes{};
    if (!position) return g;
    __builtin_memcpy(&w, position + place * filters + filter, sizeof(w));
    return widen(w) == VI{} + int32_t{no_position} ? V{} : g;
  }
};

// Lists of `lanes` filters from `filter` on (those that exist). offsets: of each place's patch, or of its window's first; inside: what a
// position adds to that. Adds the gradients to the biases'.
KLOPF_FN void list_filters(const OutputGradient& from, int64_t first, int64_t places, int filter, const int32_t* offsets,
                           const int32_t* inside, int window_size, const List* lists, int32_t* counts, float* grad_bias) {
  const int filters = from.filters - filter < lanes ? from.filters - filter : lanes;
  V bias{};
  for (int k = 0; k < filters; ++k) counts[k] = 0, bias[k] = grad_bias[k];
  for (int64_t p = 0; p < places; p += lanes) {
    V grad[lanes];
    Bytes position[lanes];
#pragma GCC unroll 16
    for (int i = 0; i < lanes; ++i) {
      position[i] = Bytes{};
      grad[i] = p + i < places ? from.load_place(first + p + i, filter, position[i]) : V{};
      bias += grad[i];
    }
    transpose<V, VI>(grad);
    if (from.position) transpose<Bytes, Bytes>(position);
    VI offset;
    __builtin_memcpy(&offset, offsets + p, sizeof(offset));
    for (int k = 0; k < filters; ++k) {
      const VI at = from.position ? offset + look_up(inside, window_size, widen(position[k])) : offset;
      counts[k] += append(grad[k], at, {lists[k].value + counts[k], lists[k].at + counts[k]});
    }
  }
  for (int k = 0; k < filters; ++k) grad_bias[k] = bias[k];
}

// Lists of the output pixels of one place: its own, or those of its window. lists, counts: of the window's pixels, the counts 0 before.
KLOPF_FN void list_pixels(const OutputGradient& from, int64_t place, int window_size, int32_t filter_size, const List* lists,
                          int32_t* counts) {
#if defined(__AVX512F__)
  constexpr bool can_compress = true;
#else
  constexpr bool can_compress = false;
#endif
  if (can_compress && window_size <= 9) {
    VI at{};
    for (int i = 0; i < lanes; ++i) at[i] = i * filter_size;
    for (int o = 0; o < from.filters; o += lanes, at += lanes * filter_size) {
      Bytes w;
      V grad = from.load_place(place, o, w);
      if (from.filters - o < lanes)
        for (int i = from.filters - o; i < lanes; ++i) grad[i] = 0;
      const VI position = widen(w);
      for (int k = 0; k < window_size; ++k)
        counts[k] += append(position == VI{} + k ? grad : V{}, at, {lists[k].value + counts[k], lists[k].at + counts[k]});
    }
    return;
  }
  const float* grad = from.grad + place * from.filters;
  const uint8_t* position = from.position ? from.position + place * from.filters : nullptr;
  for (int o = 0; o < from.filters; ++o) {
    const int k = position ? position[o] : 0;
    if (k == no_position || grad[o] == 0) continue;
    lists[k].value[counts[k]] = grad[o];
    lists[k].at[counts[k]++] = o * filter_size;
  }
}
