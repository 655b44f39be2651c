#include <benchmark/benchmark.h>

#include <cstdio>

#include "klopf/error.hpp"

namespace klopf::micro {
void register_operations();
void register_steps();
}  // namespace klopf::micro

int main(int count, char** arguments) {
  benchmark::Initialize(&count, arguments);
  if (benchmark::ReportUnrecognizedArguments(count, arguments)) return 1;
  try {
    klopf::micro::register_operations();
    klopf::micro::register_steps();
    benchmark::RunSpecifiedBenchmarks();
  } catch (const klopf::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
