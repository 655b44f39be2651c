// Four runs learn which of two corners a noisy point comes from, with continual backprop.
#include <cstdio>
#include <memory>
#include <random>
#include <vector>

#include "klopf/klopf.hpp"

int main() try {
  constexpr int count = 1000, inputs = 10;
  std::mt19937 random(0);
  std::normal_distribution<float> noise;
  std::vector<float> x(count * inputs);  // [N, I], shared by all runs
  std::vector<int32_t> y(count);
  for (int n = 0; n < count; ++n) {
    y[n] = n % 2;
    for (int i = 0; i < inputs; ++i) x[n * inputs + i] = (y[n] ? 0.5f : -0.5f) + noise(random);
  }
  const klopf::Samples samples{.x = x.data(), .count = count, .labels = y.data()};

  auto network = std::make_shared<klopf::Network>(
      klopf::NetworkOptions{.layers = {klopf::Linear{32}, klopf::ReLU{}, klopf::Linear{2}}, .input_shape = {inputs}, .runs = 4});
  klopf::Learner learner(network, "cross_entropy", klopf::SGD{.step_size = {0.001, 0.003, 0.01, 0.03}, .momentum = 0.9},
                         {klopf::ContinualBackprop{.replacement_rate = 1e-3}});

  const std::vector<double> before = learner.evaluate(samples).loss;
  learner.run(samples, {.batch_size = 50, .epochs = 10});
  const klopf::Evaluation after = learner.evaluate(samples);
  bool learned = true;
  for (int run = 0; run < network->runs(); ++run) {
    std::printf("run %d: loss %.3f -> %.3f, accuracy %.3f\n", run, before[run], after.loss[run], after.accuracy[run]);
    learned = learned && after.loss[run] < 0.5 * before[run];
  }
  return learned ? 0 : 1;
} catch (const klopf::Error& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 2;
}
