// Every operation of a step by itself, on memory as the step left it.
#include <benchmark/benchmark.h>

#include "costs.hpp"
#include "opened.hpp"

namespace klopf::micro {

void register_operations() {
  for (const Case& of : cases()) {
    const auto opened = std::make_shared<Opened>(of);
    int number = 0;
    for (const Operation& operation : opened->program())
      std::visit(
          [&](const auto& op) {
            const double flop = cost(op, opened->batch()).flop;
            const auto run = [opened, operation, flop](benchmark::State& state) {
              for (auto _ : state) opened->play(operation);
              if (flop > 0)
                state.counters["nominal FLOP/s"] =
                    benchmark::Counter(flop, benchmark::Counter::kIsIterationInvariantRate, benchmark::Counter::kIs1000);
            };
            benchmark::RegisterBenchmark(("operation/" + of.name + "/" + std::to_string(number++) + "." + name(op)).c_str(), run);
          },
          operation);
  }
}

}  // namespace klopf::micro
