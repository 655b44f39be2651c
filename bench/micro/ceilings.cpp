// What the machine could do: fused multiply-adds from registers, and copying memory.
#include <benchmark/benchmark.h>

#include <cstring>
#include <vector>

namespace {

// Every accumulator is consumed, else the compiler drops it and the loop shows more than the machine has.
#define KLOPF_CEILING(function, name, lanes, attributes)                                                                               \
  attributes void function(benchmark::State& state) {                                                                                  \
    typedef float V __attribute__((vector_size(4 * lanes)));                                                                           \
    constexpr int chains = 12, length = 1000;                                                                                          \
    V sum[chains] = {}, a, b;                                                                                                          \
    for (int i = 0; i < lanes; ++i) a[i] = 0.999f, b[i] = 0.001f;                                                                      \
    asm volatile("" : "+x"(a), "+x"(b));                                                                                               \
    for (auto _ : state)                                                                                                               \
      for (int n = 0; n < length; ++n)                                                                                                 \
        for (int i = 0; i < chains; ++i) sum[i] = sum[i] * a + b;                                                                      \
    V total{};                                                                                                                         \
    for (int i = 0; i < chains; ++i) total += sum[i];                                                                                  \
    benchmark::DoNotOptimize(total);                                                                                                   \
    state.counters["FLOP/s"] =                                                                                                         \
        benchmark::Counter(2.0 * lanes * chains * length, benchmark::Counter::kIsIterationInvariantRate, benchmark::Counter::kIs1000); \
  }                                                                                                                                    \
  BENCHMARK(function)->Name("ceiling/" name)

#if defined(__x86_64__)
#define KLOPF_TARGET(what) [[gnu::target(what)]]
KLOPF_CEILING(avx512, "fma/avx512", 16, KLOPF_TARGET("avx512f,prefer-vector-width=512"));
KLOPF_CEILING(avx2, "fma/avx2", 8, KLOPF_TARGET("avx2,fma"));
#endif
KLOPF_CEILING(baseline, "multiply-add/baseline", 4, );

void copy(benchmark::State& state) {
  const std::size_t bytes = static_cast<std::size_t>(state.range(0)) << 10;
  std::vector<char> from(bytes, 1), to(bytes);
  for (auto _ : state) {
    std::memcpy(to.data(), from.data(), bytes);
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(static_cast<int64_t>(bytes) * state.iterations());
}
BENCHMARK(copy)->Name("ceiling/copy/KiB")->Arg(16)->Arg(256)->Arg(4096)->Arg(131072);

}  // namespace
