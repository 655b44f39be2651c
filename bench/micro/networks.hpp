#pragma once
#include <memory>
#include <string>
#include <vector>

#include "klopf/klopf.hpp"

// The networks that the microbenchmarks run on: the shapes that klopf is used with.
namespace klopf::micro {

struct Case {
  std::string name;
  std::vector<Layer> layers;
  std::vector<int64_t> input_shape;
  int batch;
  std::string loss;
  Optimizer optimizer;
  std::vector<Rule> rules;
};

inline std::vector<Case> cases() {
  const auto mlp = [](const std::vector<int>& hidden, int outputs) {
    std::vector<Layer> layers;
    for (const int units : hidden) layers.insert(layers.end(), {Linear{units}, ReLU{}});
    layers.push_back(Linear{outputs});
    return layers;
  };
  const std::vector<Layer> imagenet{Conv2d{32, 5}, ReLU{},         MaxPool2d{2}, Conv2d{64, 3}, ReLU{},
                                    MaxPool2d{2},  Conv2d{128, 3}, ReLU{},       MaxPool2d{2},  Flatten{},
                                    Linear{128},   ReLU{},         Linear{128},  ReLU{},        Linear{2}};
  const std::vector<Layer> demo{Conv2d{8, 5}, ReLU{},    MaxPool2d{2}, Conv2d{16, 3}, ReLU{},
                                MaxPool2d{2}, Flatten{}, Linear{32},   ReLU{},        Linear{2}};
  const SGD momentum{.step_size = 0.01, .momentum = 0.9}, plain{.step_size = 0.001};
  ContinualBackprop cbp;
  cbp.replacement_rate = 3e-4;
  return {
      {"imagenet", imagenet, {3, 32, 32}, 100, "cross_entropy", momentum, {cbp}},
      {"demo", demo, {3, 16, 16}, 20, "cross_entropy", momentum, {cbp}},
      {"ppo-policy", mlp({256, 256}, 8), {27}, 128, "mse", Adam{.step_size = 3e-4}, {}},
      {"ppo-value", mlp({256, 256}, 1), {27}, 128, "mse", Adam{.step_size = 3e-4}, {}},
      {"ppo-policy-2048", mlp({256, 256}, 8), {27}, 2048, "mse", Adam{.step_size = 3e-4}, {}},
      {"stream", mlp({128, 128}, 8), {105}, 1, "mse", plain, {}},
      {"stream-128", mlp({128, 128}, 8), {105}, 128, "mse", plain, {}},
      {"tiny", mlp({5}, 1), {20}, 1, "squared_error", plain, {cbp}},
      {"permuted", mlp({2000, 2000, 2000}, 10), {784}, 1, "cross_entropy", plain, {cbp}},
      {"all-layers",
       {Conv2d{16, 3, 1, 1}, LeakyReLU{}, MaxPool2d{3, 2}, Conv2d{32, 3, 2}, Tanh{}, Flatten{}, Linear{10}},
       {3, 32, 32},
       32,
       "cross_entropy",
       momentum,
       {ShrinkAndPerturb{1e-5}}},
  };
}

// Repeatable inputs and targets for `count` samples.
struct Data {
  std::vector<float> x, targets;
  std::vector<int32_t> labels;
  Samples samples;
  Data(const Case& of, int64_t inputs, int64_t outputs, int64_t count)
      : x(static_cast<std::size_t>(inputs * count)),
        targets(static_cast<std::size_t>(outputs * count)),
        labels(static_cast<std::size_t>(count)) {
    uint32_t state = 1;
    const auto next = [&state] { return static_cast<float>((state = state * 1664525u + 1013904223u) >> 8) / 8388608.0f - 1; };
    for (float& v : x) v = next();
    for (float& v : targets) v = next();
    for (int32_t& v : labels) v = next() > 0;
    samples.x = x.data();
    samples.count = count;
    (of.loss == "cross_entropy" ? static_cast<const void*>(samples.labels = labels.data()) : samples.targets = targets.data());
  }
};

inline std::shared_ptr<Network> network(const Case& of, int runs) {
  NetworkOptions options;
  options.layers = of.layers;
  options.input_shape = of.input_shape;
  options.runs = runs;
  return std::make_shared<Network>(std::move(options));
}

}  // namespace klopf::micro
