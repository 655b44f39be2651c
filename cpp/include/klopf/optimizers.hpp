#pragma once
#include <string>
#include <variant>

#include "klopf/hyper.hpp"

// How weights follow the gradient. The mathematics of one weight is in rules/optimizers.hpp.
namespace klopf {

struct SGD {
  PerRun step_size = 0.01, momentum = 0.0, weight_decay = 0.0;
  template <class F>
  static void fields(F&& f) {
    f("step_size", &SGD::step_size, "alpha");
    f("momentum", &SGD::momentum, "mu, in [0, 1)");
    f("weight_decay", &SGD::weight_decay, "lambda, added to the gradient as lambda w (biases included)");
  }
};

struct Adam {
  PerRun step_size = 0.001, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, weight_decay = 0.0;
  std::string epsilon_at = "corrected";
  template <class F>
  static void fields(F&& f) {
    f("step_size", &Adam::step_size, "alpha");
    f("beta1", &Adam::beta1, "decay of the first moment, in [0, 1)");
    f("beta2", &Adam::beta2, "decay of the second moment, in [0, 1)");
    f("epsilon", &Adam::epsilon, "added to the root of the second moment");
    f("weight_decay", &Adam::weight_decay, "lambda, added to the gradient as lambda w (biases included)");
    f("epsilon_at", &Adam::epsilon_at,
      "\"corrected\" (as PyTorch) or \"raw\": whether epsilon is added after or before the bias correction");
  }
};

using Optimizer = std::variant<SGD, Adam>;

}  // namespace klopf
