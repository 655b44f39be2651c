// The maxima of a window so far, and their positions in it.
template <class T>
struct Maxima {
  using R = typename T::R;
  using I = decltype(R{} < R{});
  R value[T::columns];
  I position[T::columns] = {};
  KLOPF_MEMBER_FN Maxima() {
    for (int c = 0; c < T::columns; ++c) value[c] = broadcast<R>(-__builtin_inff());
  }
  KLOPF_MEMBER_FN void take(const R (&row)[T::columns], int position_of_row) {
    for (int c = 0; c < T::columns; ++c) {
      const I keep = row[c] <= value[c];  // false for NaN, which so wins
      value[c] = keep ? value[c] : row[c];
      position[c] = keep ? position[c] : I{} + position_of_row;
    }
  }
  // Adds the bias, applies ReLU, and stores the first `count` channels.
  KLOPF_MEMBER_FN void finish(const BlockBias& bias, float* output, uint8_t* positions, int count) {
    typedef uint8_t Narrow __attribute__((vector_size(width_of<R>)));
    uint8_t bytes[block];
    for (int c = 0; c < T::columns; ++c) {
      value[c] += load<R>(bias.value + c * width_of<R>);
      const I shut = value[c] <= R{};
      value[c] = relu(value[c]);
      const Narrow narrow = __builtin_convertvector(shut ? I{} + int32_t{no_position} : position[c], Narrow);
      __builtin_memcpy(bytes + c * width_of<R>, &narrow, sizeof(narrow));
    }
    store_channels(output, value, count);
    if (count >= T::columns * width_of<R>) __builtin_memcpy(positions, bytes, T::columns * sizeof(Narrow));
    else
      for (int i = 0; i < count; ++i) positions[i] = bytes[i];
  }
};
