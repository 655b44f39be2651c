// A vector of as many floats as a register of this level holds. Included inside the level's own anonymous namespace.
#if defined(__AVX512F__)
#define KLOPF_LANES 16
#elif defined(__AVX2__)
#define KLOPF_LANES 8
#else
#define KLOPF_LANES 4
#endif
constexpr int lanes = KLOPF_LANES;
typedef float V __attribute__((vector_size(4 * KLOPF_LANES)));
// Half a register, for arrays too narrow to fill one (the baseline has no narrower one).
#if defined(__AVX2__)
constexpr int half_lanes = lanes / 2;
#else
constexpr int half_lanes = lanes;
#endif
#if defined(__AVX512F__)
typedef float H __attribute__((vector_size(32)));
#else
typedef float H __attribute__((vector_size(16)));
#endif

template <class R>
constexpr int width_of = sizeof(R) / sizeof(float);
template <class R = V>
KLOPF_FN R load(const float* p) {
  R r;
  __builtin_memcpy(&r, p, sizeof(R));
  return r;
}
template <class R>
KLOPF_FN void store(float* p, R v) {
  __builtin_memcpy(p, &v, sizeof(R));
}
template <class R = V>
KLOPF_FN R broadcast(float x) {
  return x - R{};  // -0 and NaN stay what they are
}
// The one place where a multiplication and an addition are fused (never by the compiler's own choice).
#if defined(__AVX512F__)
KLOPF_FN V fma(V a, V b, V c) {
  return reinterpret_cast<V>(_mm512_fmadd_ps(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b), reinterpret_cast<__m512>(c)));
}
KLOPF_FN H fma(H a, H b, H c) {
  return reinterpret_cast<H>(_mm256_fmadd_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b), reinterpret_cast<__m256>(c)));
}
#elif defined(__FMA__)
KLOPF_FN V fma(V a, V b, V c) {
  return reinterpret_cast<V>(_mm256_fmadd_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b), reinterpret_cast<__m256>(c)));
}
KLOPF_FN H fma(H a, H b, H c) {
  return reinterpret_cast<H>(_mm_fmadd_ps(reinterpret_cast<__m128>(a), reinterpret_cast<__m128>(b), reinterpret_cast<__m128>(c)));
}
#else
KLOPF_FN V fma(V a, V b, V c) { return a * b + c; }
#endif
// max(x, 0) that lets NaN through.
template <class R>
KLOPF_FN R relu(R x) {
  return x < R{} ? R{} : x;
}
KLOPF_FN V magnitude(V x) { return x < V{} ? -x : x; }

// The first n < lanes floats, zeros behind them; and back.
KLOPF_FN V load_first(const float* p, int n) {
#if defined(__AVX512F__)
  return reinterpret_cast<V>(_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), p));
#elif defined(__AVX2__)
  static const int32_t masks[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
  return reinterpret_cast<V>(_mm256_maskload_ps(p, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(masks + 8 - n))));
#else
  float all[lanes] = {};
  for (int i = 0; i < n; ++i) all[i] = p[i];
  return load(all);
#endif
}
template <class R>
KLOPF_FN void store_first(float* p, R v, int n) {
#if defined(__AVX512F__)
  const __mmask16 mask = static_cast<__mmask16>((1u << n) - 1);
  if constexpr (sizeof(R) == 64) return _mm512_mask_storeu_ps(p, mask, reinterpret_cast<__m512>(v));
  else return _mm256_mask_storeu_ps(p, static_cast<__mmask8>(mask), reinterpret_cast<__m256>(v));
#elif defined(__AVX2__)
  __m128 rest;
  if constexpr (sizeof(R) == 32) {
    rest = _mm256_castps256_ps128(reinterpret_cast<__m256>(v));
    if (n & 4) _mm_storeu_ps(p, rest), p += 4, rest = _mm256_extractf128_ps(reinterpret_cast<__m256>(v), 1);
  } else {
    rest = reinterpret_cast<__m128>(v);
  }
  if (n & 2) _mm_storel_pi(reinterpret_cast<__m64*>(p), rest), p += 2, rest = _mm_movehl_ps(rest, rest);
  if (n & 1) _mm_store_ss(p, rest);
#else
  for (int i = 0; i < n; ++i) p[i] = v[i];
#endif
}

// work(i, get, put) for n numbers, a register at a time; get(p) and put(p, v) load and store what is there of it.
template <class Work>
KLOPF_FN void for_lanes(int n, Work work) {
  int i = 0;
  for (; i + lanes <= n; i += lanes) work(i, [](const float* p) { return load(p); }, [](float* p, V v) { store(p, v); });
  if (const int rest = n - i)
    work(i, [rest](const float* p) { return load_first(p, rest); }, [rest](float* p, V v) { store_first(p, v, rest); });
}

// A long sum in 16 partial sums, combined pairwise, whatever the level's width.
struct Sum16 {
  V part[16 / lanes] = {};
  KLOPF_MEMBER_FN float total() const {
    typedef float V8 __attribute__((vector_size(32)));
    typedef float V4 __attribute__((vector_size(16)));
    V8 eight[2];
    __builtin_memcpy(eight, part, sizeof(eight));
    eight[0] += eight[1];
    V4 four[2];
    __builtin_memcpy(four, eight, sizeof(four));
    four[0] += four[1];
    return (four[0][0] + four[0][2]) + (four[0][1] + four[0][3]);
  }
};
KLOPF_FN float total_of_16(const float* parts) {
  Sum16 sum;
  __builtin_memcpy(sum.part, parts, sizeof(sum.part));
  return sum.total();
}

// add(sum, first, count) adds `count` numbers from `first` on to a register of sums; so for all n.
template <class Add>
KLOPF_FN float sum16(int64_t n, Add add) {
  Sum16 sum;
  int64_t i = 0;
  for (; i + 16 <= n; i += 16)
    for (int k = 0; k < 16 / lanes; ++k) sum.part[k] = add(sum.part[k], i + k * lanes, lanes);
  for (int k = 0; i < n; ++k, i += lanes) sum.part[k] = add(sum.part[k], i, n - i < lanes ? static_cast<int>(n - i) : lanes);
  return sum.total();
}
KLOPF_FN float dot(const float* a, const float* b, int64_t n) {
  return sum16(n, [&](V sum, int64_t i, int count) {
    return count == lanes ? fma(load(a + i), load(b + i), sum) : fma(load_first(a + i, count), load_first(b + i, count), sum);
  });
}
KLOPF_FN float sum_of(const float* a, int64_t n) {
  return sum16(n, [&](V sum, int64_t i, int count) { return sum + (count == lanes ? load(a + i) : load_first(a + i, count)); });
}
KLOPF_FN float sum_of_magnitudes(const float* a, int64_t n) {
  return sum16(n, [&](V sum, int64_t i, int count) { return sum + magnitude(count == lanes ? load(a + i) : load_first(a + i, count)); });
}

typedef int32_t VI __attribute__((vector_size(4 * KLOPF_LANES)));
typedef uint8_t Bytes __attribute__((vector_size(KLOPF_LANES)));
KLOPF_FN VI widen(Bytes b) {
#if defined(__AVX512F__)
  return reinterpret_cast<VI>(_mm512_maskz_cvtepu8_epi32(0xFFFF, reinterpret_cast<__m128i>(b)));
#elif defined(__AVX2__)
  return reinterpret_cast<VI>(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(&b))));
#else
  return __builtin_convertvector(b, VI);
#endif
}
#if KLOPF_LANES == 16
#define KLOPF_LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define KLOPF_HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif KLOPF_LANES == 8
#define KLOPF_LOW 0, 8, 1, 9, 2, 10, 3, 11
#define KLOPF_HIGH 4, 12, 5, 13, 6, 14, 7, 15
#else
#define KLOPF_LOW 0, 4, 1, 5
#define KLOPF_HIGH 2, 6, 3, 7
#endif
// Transposes lanes x lanes numbers: interleaving the first half of the rows with the second does a part of it, as often as halves
// can be halved.
template <class R, class Index>
KLOPF_FN void transpose(R (&row)[lanes]) {
#pragma GCC unroll 4
  for (int done = 1; done < lanes; done *= 2) {
    R next[lanes];
#pragma GCC unroll 8
    for (int i = 0; i < lanes / 2; ++i) {
#if defined(__clang__)
      next[2 * i] = __builtin_shufflevector(row[i], row[i + lanes / 2], KLOPF_LOW);
      next[2 * i + 1] = __builtin_shufflevector(row[i], row[i + lanes / 2], KLOPF_HIGH);
#else
      next[2 * i] = __builtin_shuffle(row[i], row[i + lanes / 2], Index{KLOPF_LOW});
      next[2 * i + 1] = __builtin_shuffle(row[i], row[i + lanes / 2], Index{KLOPF_HIGH});
#endif
    }
#pragma GCC unroll 16
    for (int i = 0; i < lanes; ++i) row[i] = next[i];
  }
}

template <class Integer>
KLOPF_FN Integer round_up(Integer n, int to) {
  return (n + to - 1) / to * to;
}
// A number as a type.
template <int n>
struct Number {
  static constexpr int value = n;
};
