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
  std::vector<Layer> apart = imagenet;
  for (Layer& layer : apart)
    if (std::holds_alternative<ReLU>(layer)) layer = LeakyReLU{};
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
      {"imagenet-apart",  // the same sizes where nothing is fused, with other updates
       apart,
       {3, 32, 32},
       100,
       "cross_entropy",
       Adam{},
       {ShrinkAndPerturb{1e-5}}},
      {"all-layers",
       {Conv2d{16, 3, 1, 1}, LeakyReLU{}, MaxPool2d{3, 2}, Conv2d{32, 3, 2}, Tanh{}, Flatten{}, Linear{10}},
       {3, 32, 32},
       32,
       "cross_entropy",
       momentum,
       {ShrinkAndPerturb{1e-5}}},
  };
}

inline std::shared_ptr<Network> network(const Case& of, int runs, const std::string& device = "cpu",
                                        const std::string& precision = "float32") {
  NetworkOptions options;
  options.layers = of.layers;
  options.input_shape = of.input_shape;
  options.runs = runs;
  options.device = device;
  options.precision = precision;
  return std::make_shared<Network>(std::move(options));
}

// Repeatable inputs and targets for `count` samples, the same for all runs or for each its own. Images are uint8.
struct Data {
  std::vector<uint8_t> pixels;
  std::vector<float> x, targets, scale, offset;
  std::vector<int32_t> labels;
  Samples samples;
  Data(const Case& of, const Network& net, int64_t count, bool per_run = false) {
    uint32_t state = 1;
    const auto next = [&state] { return static_cast<float>((state = state * 1664525u + 1013904223u) >> 8) / 8388608.0f - 1; };
    const auto fill = [&](auto& values, int64_t size, auto value) {
      values.resize(static_cast<std::size_t>(size * count * (per_run ? net.runs() : 1)));
      for (auto& v : values) v = value();
    };
    if (of.input_shape.size() == 3) {
      fill(pixels, net.input_size(), [&] { return static_cast<uint8_t>(127.5f * (next() + 1)); });
      scale.assign(static_cast<std::size_t>(net.input_channels()), 1 / 127.5f);
      offset.assign(scale.size(), -1);
      samples = {.x = pixels.data(), .type = InputType::uint8, .scale = scale.data(), .offset = offset.data()};
    } else {
      fill(x, net.input_size(), next);
      samples.x = x.data();
    }
    samples.count = count;
    samples.per_run = samples.targets_per_run = per_run;
    if (of.loss == "cross_entropy") {
      fill(labels, 1, [&] { return next() > 0; });
      samples.labels = labels.data();
    } else {
      fill(targets, net.outputs(), next);
      samples.targets = targets.data();
    }
  }
  Data(const Data&) = delete;
};

}  // namespace klopf::micro
