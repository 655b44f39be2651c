// A vector of as many floats as a register of this level holds. Included inside the level's own anonymous namespace.
#if defined(__AVX512F__)
#define KLOPF_LANES 16
#elif defined(__AVX2__)
#define KLOPF_LANES 8
#else
#define KLOPF_LANES 4
#endif
constexpr int lanes = KLOPF_LANES;
typedef float V __attribute__((vector_size(4 * KLOPF_LANES), may_alias));
typedef int32_t VI __attribute__((vector_size(4 * KLOPF_LANES), may_alias));
typedef float Unaligned __attribute__((vector_size(4 * KLOPF_LANES), may_alias, aligned(4)));

KLOPF_FN V load(const float* p) { return *reinterpret_cast<const Unaligned*>(p); }
KLOPF_FN void store(float* p, V v) { *reinterpret_cast<Unaligned*>(p) = v; }
KLOPF_FN V broadcast(float x) {
#if defined(__AVX512F__)
  return reinterpret_cast<V>(_mm512_set1_ps(x));
#elif defined(__AVX2__)
  return reinterpret_cast<V>(_mm256_set1_ps(x));
#else
  return V{x, x, x, x};
#endif
}
// The one place where a multiplication and an addition are fused (never by the compiler's own choice).
KLOPF_FN V fma(V a, V b, V c) {
#if defined(__AVX512F__)
  return reinterpret_cast<V>(_mm512_fmadd_ps(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b), reinterpret_cast<__m512>(c)));
#elif defined(__FMA__)
  return reinterpret_cast<V>(_mm256_fmadd_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b), reinterpret_cast<__m256>(c)));
#else
  return a * b + c;
#endif
}
KLOPF_FN V zero() { return V{}; }
// max(x, 0) that lets NaN through.
KLOPF_FN V relu(V x) { return x < zero() ? zero() : x; }
KLOPF_FN V magnitude(V x) { return x < zero() ? -x : x; }

// A long sum in 16 partial sums, combined pairwise, whatever the level's width.
struct Sum16 {
  V part[16 / lanes] = {};
  KLOPF_MEMBER_FN void add(int i, V v) { part[i] += v; }
  KLOPF_MEMBER_FN float total(const float* tail, int count) const {
    float s[16];
    for (int i = 0; i < 16 / lanes; ++i) store(s + i * lanes, part[i]);
    for (int i = 0; i < count; ++i) s[i] += tail[i];
    for (int width = 8; width > 0; width /= 2)
      for (int i = 0; i < width; ++i) s[i] += s[i + width];
    return s[0];
  }
};

KLOPF_FN float dot(const float* a, const float* b, int64_t n) {
  Sum16 sum;
  int64_t i = 0;
  for (; i + 16 <= n; i += 16)
    for (int k = 0; k < 16 / lanes; ++k) sum.part[k] = fma(load(a + i + k * lanes), load(b + i + k * lanes), sum.part[k]);
  float tail[16];
  const int rest = static_cast<int>(n - i);
  for (int k = 0; k < rest; ++k) tail[k] = a[i + k] * b[i + k];
  return sum.total(tail, rest);
}

KLOPF_FN float sum_of_magnitudes(const float* a, int64_t n) {
  Sum16 sum;
  int64_t i = 0;
  for (; i + 16 <= n; i += 16)
    for (int k = 0; k < 16 / lanes; ++k) sum.add(k, magnitude(load(a + i + k * lanes)));
  float tail[16];
  const int rest = static_cast<int>(n - i);
  for (int k = 0; k < rest; ++k) tail[k] = a[i + k] < 0 ? -a[i + k] : a[i + k];
  return sum.total(tail, rest);
}
