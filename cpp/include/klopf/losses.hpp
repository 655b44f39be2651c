#pragma once
#include <string>
#include <variant>

#include "klopf/hyper.hpp"

// What a learner's outputs are judged by.
namespace klopf {

// The clipped surrogate of proximal policy optimisation (Schulman et al. 2017).
struct ClippedPolicy {
  std::string distribution = "gaussian";
  PerRun clip = 0.2, entropy = 0.0;
  bool operator==(const ClippedPolicy&) const = default;
  template <class F>
  static void fields(F&& f) {
    using C = ClippedPolicy;
    f("distribution", &C::distribution, "of actions: \"gaussian\", for a network that ends with LogStd, or \"categorical\"");
    f("clip", &C::clip, "epsilon: how far from 1 the ratio of probabilities still matters");
    f("entropy", &C::entropy, "weight of the entropy that is added to what is maximised");
  }
};

// "cross_entropy", "mse", "squared_error", or one with options.
using LossSpec = std::variant<std::string, ClippedPolicy>;

}  // namespace klopf
