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

// Step sizes that follow from what is learned. The mathematics is in rules/step_sizes.hpp.

struct IDBD {
  PerRun step_size = 0.05, meta_step_size = 0.01;
  std::string scope = "weight";
  template <class F>
  static void fields(F&& f) {
    f("step_size", &IDBD::step_size, "alpha_0, where every step size begins");
    f("meta_step_size", &IDBD::meta_step_size, "theta");
    f("scope", &IDBD::scope, "who owns a step size: \"weight\", \"unit\", \"layer\" or \"network\"");
  }
};

struct Autostep {
  PerRun step_size = 0.01, meta_step_size = 0.01, time_constant = 1e4;
  std::string scope = "weight", bound = "unit";
  template <class F>
  static void fields(F&& f) {
    f("step_size", &Autostep::step_size, "alpha_0, where every step size begins");
    f("meta_step_size", &Autostep::meta_step_size, "mu");
    f("time_constant", &Autostep::time_constant, "tau, of the normaliser of meta-gradients");
    f("scope", &Autostep::scope, "who owns a step size and its normaliser: \"weight\", \"unit\", \"layer\" or \"network\"");
    f("bound", &Autostep::bound, "whose step is kept from overshooting: a \"unit\"'s, a \"layer\"'s or the \"network\"'s");
  }
};

struct ObGD {
  PerRun step_size = 1.0, kappa = 2.0;
  std::string scope = "network";
  template <class F>
  static void fields(F&& f) {
    f("step_size", &ObGD::step_size, "alpha, where nothing would overshoot");
    f("kappa", &ObGD::kappa, "how much more than what is safe a step counts for");
    f("scope", &ObGD::scope, "whose step is kept from overshooting: the \"network\"'s, a \"layer\"'s, a \"unit\"'s or a \"weight\"'s");
  }
};

struct AdaptiveObGD {
  PerRun step_size = 1.0, kappa = 2.0, beta2 = 0.999, epsilon = 1e-8;
  std::string scope = "network";
  template <class F>
  static void fields(F&& f) {
    f("step_size", &AdaptiveObGD::step_size, "alpha, where nothing would overshoot");
    f("kappa", &AdaptiveObGD::kappa, "how much more than what is safe a step counts for");
    f("beta2", &AdaptiveObGD::beta2, "decay of the mean square, in [0, 1)");
    f("epsilon", &AdaptiveObGD::epsilon, "added to the mean square before its root");
    f("scope", &AdaptiveObGD::scope,
      "whose step is kept from overshooting: the \"network\"'s, a \"layer\"'s, a \"unit\"'s or a \"weight\"'s");
  }
};

using Optimizer = std::variant<SGD, Adam, IDBD, Autostep, ObGD, AdaptiveObGD>;

}  // namespace klopf
