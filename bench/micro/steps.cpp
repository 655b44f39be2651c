// Whole steps, as Learner::run takes them, for several runs at once.
#include <benchmark/benchmark.h>

#include "klopf/threads.hpp"
#include "networks.hpp"

namespace klopf::micro {

void register_steps() {
  for (const Case& of : cases())
    for (const int threads : {1, 2})
      for (const int runs : {1, 2, 8, 30}) {
        if (of.name == "permuted" && runs > 2) continue;  // 9.6 million weights a run
        const auto run = [of, threads, runs](benchmark::State& state) {
          set_threads(threads);
          const auto net = network(of, runs);
          Learner learner(net, of.loss, of.optimizer, of.rules);
          const int64_t steps = of.batch == 1 ? 200 : 2;
          const Data data(of, *net, of.batch * steps);
          const RunOptions options{.batch_size = of.batch, .epochs = 1, .shuffle = true, .between = {}};
          learner.run(data.samples, options);
          for (auto _ : state) learner.run(data.samples, options);
          state.counters["s/step/run"] = benchmark::Counter(static_cast<double>(steps * runs),
                                                            benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
        };
        benchmark::RegisterBenchmark(("step/" + of.name + "/threads:" + std::to_string(threads) + "/runs:" + std::to_string(runs)).c_str(),
                                     run)
            ->UseRealTime();
      }
}

}  // namespace klopf::micro
