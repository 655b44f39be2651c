#pragma once
#include <string>
#include <variant>

#include "klopf/hyper.hpp"

// How weights follow the gradient. The mathematics of one weight is in rules/optimizers.hpp.
namespace klopf {

struct SGD {
  PerRun step_size = 0.01, momentum = 0.0, weight_decay = 0.0;
  std::string decay_to = "zero";
  template <class F>
  static void fields(F&& f) {
    f("step_size", &SGD::step_size, "alpha");
    f("momentum", &SGD::momentum, "mu, in [0, 1)");
    f("weight_decay", &SGD::weight_decay, "lambda, added to the gradient as lambda w (biases included)");
    f("decay_to", &SGD::decay_to, "\"zero\", or the \"initial\" weights w_0: then as lambda (w - w_0)");
  }
};

struct Adam {
  PerRun step_size = 0.001, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, weight_decay = 0.0;
  std::string epsilon_at = "corrected", decay_to = "zero";
  template <class F>
  static void fields(F&& f) {
    f("step_size", &Adam::step_size, "alpha");
    f("beta1", &Adam::beta1, "decay of the first moment, in [0, 1)");
    f("beta2", &Adam::beta2, "decay of the second moment, in [0, 1)");
    f("epsilon", &Adam::epsilon, "added to the root of the second moment");
    f("weight_decay", &Adam::weight_decay, "lambda, added to the gradient as lambda w (biases included)");
    f("epsilon_at", &Adam::epsilon_at,
      "\"corrected\" (as PyTorch) or \"raw\": whether epsilon is added after or before the bias correction");
    f("decay_to", &Adam::decay_to, "\"zero\", or the \"initial\" weights w_0: then as lambda (w - w_0)");
  }
};

struct AdamW {
  PerRun step_size = 0.001, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, weight_decay = 0.01;
  std::string decay_to = "zero";
  template <class F>
  static void fields(F&& f) {
    f("step_size", &AdamW::step_size, "alpha");
    f("beta1", &AdamW::beta1, "decay of the first moment, in [0, 1)");
    f("beta2", &AdamW::beta2, "decay of the second moment, in [0, 1)");
    f("epsilon", &AdamW::epsilon, "added to the root of the second moment, after the bias correction");
    f("weight_decay", &AdamW::weight_decay, "lambda: weights also move by -alpha lambda w (biases included)");
    f("decay_to", &AdamW::decay_to, "\"zero\", or the \"initial\" weights w_0: then by -alpha lambda (w - w_0)");
  }
};

struct UPGD {
  PerRun step_size = 0.01, weight_decay = 0.0, utility_decay = 0.999, noise = 0.001, factor = 1.0;
  std::string maximum = "uncorrected";
  template <class F>
  static void fields(F&& f) {
    f("step_size", &UPGD::step_size, "alpha");
    f("weight_decay", &UPGD::weight_decay, "lambda: weights also move by -alpha lambda w (biases included)");
    f("utility_decay", &UPGD::utility_decay, "beta of the running utility, in [0, 1)");
    f("noise", &UPGD::noise, "sigma of the normal noise that is added to gradients");
    f("factor", &UPGD::factor, "c of the step: 1 in the published experiments, 2 in the published library");
    f("maximum", &UPGD::maximum,
      "of the \"uncorrected\" (as published code) or the \"corrected\" utilities (as the paper), by which utilities are divided");
  }
};

// Step sizes that follow from what is learned. The mathematics is in rules/step_sizes.hpp.

// What is done to step sizes beside learning them; and to weights, beside following gradients.
struct StepLimits {
  PerRun minimum_step_size = 0.0, maximum_step_size = PerRun::none(), newcomer_step_size = PerRun::none(),
         output_step_size = PerRun::none(), weight_decay = 0.0;
  template <class F>
  static void limits(F&& f) {
    f("minimum_step_size", &StepLimits::minimum_step_size, "the least that step sizes fall to, but for the bound on a step");
    f.optional("maximum_step_size", &StepLimits::maximum_step_size, "the most that they rise to; None: no limit");
    f.optional("newcomer_step_size", &StepLimits::newcomer_step_size,
               "where the step sizes of replaced units and of their outgoing weights begin; None: at step_size");
    f.optional("output_step_size", &StepLimits::output_step_size, "a fixed one for the last layer's weights; None: learned like others");
    f("weight_decay", &StepLimits::weight_decay, "lambda: weights also move by -alpha lambda w, where alpha is learned (biases included)");
  }
};

struct IDBD : StepLimits {
  PerRun step_size = 0.05, meta_step_size = 0.01;
  std::string scope = "weight";
  template <class F>
  static void fields(F&& f) {
    f("step_size", &IDBD::step_size, "alpha_0, where every step size begins");
    f("meta_step_size", &IDBD::meta_step_size, "theta");
    f("scope", &IDBD::scope, "who owns a step size: \"weight\", \"unit\", \"layer\" or \"network\"");
    limits(f);
  }
};

struct Autostep : StepLimits {
  PerRun step_size = 0.01, meta_step_size = 0.01, time_constant = 1e4;
  std::string scope = "weight", bound = "unit";
  template <class F>
  static void fields(F&& f) {
    f("step_size", &Autostep::step_size, "alpha_0, where every step size begins");
    f("meta_step_size", &Autostep::meta_step_size, "mu");
    f("time_constant", &Autostep::time_constant, "tau, of the normaliser of meta-gradients");
    f("scope", &Autostep::scope, "who owns a step size and its normaliser: \"weight\", \"unit\", \"layer\" or \"network\"");
    f("bound", &Autostep::bound, "whose step is kept from overshooting: a \"unit\"'s, a \"layer\"'s or the \"network\"'s");
    limits(f);
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

struct MetaOptimize {
  PerRun step_size = 0.001, meta_step_size = 0.001, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, weight_decay = 0.0, discount = 0.9999;
  std::string scope = "network";
  template <class F>
  static void fields(F&& f) {
    using C = MetaOptimize;
    f("step_size", &C::step_size, "alpha_0, where every step size begins");
    f("meta_step_size", &C::meta_step_size, "by which the logarithm of a step size changes at each step");
    f("beta1", &C::beta1, "decay of the first moment, in [0, 1)");
    f("beta2", &C::beta2, "decay of the second moment, in [0, 1)");
    f("epsilon", &C::epsilon, "added to the root of the second moment");
    f("weight_decay", &C::weight_decay, "lambda: weights also move by -alpha lambda w (biases included)");
    f("discount", &C::discount, "gamma of later losses, for which step sizes are chosen, in [0, 1]");
    f("scope", &C::scope, "who owns a step size: the \"network\", a \"layer\" or a \"unit\"");
  }
};

struct Intentional {
  PerRun step_size = 0.5, beta2 = 0.999, clip = 20.0, clip_decay = 0.9998;
  bool normalise_error = false;
  std::string scope = "network";
  template <class F>
  static void fields(F&& f) {
    using C = Intentional;
    f("step_size", &C::step_size, "eta: the share of an error that a step is to take away; of a policy how far a step is to go");
    f("beta2", &C::beta2, "decay of the mean square of gradients, in [0, 1)");
    f("clip", &C::clip, "errors count for at most so many times the root of their mean square");
    f("clip_decay", &C::clip_decay, "decay of that mean, and of the mean error, in [0, 1)");
    f("normalise_error", &C::normalise_error, "divide errors by their mean magnitude, as of policies");
    f("scope", &C::scope, "whose step is meant: the \"network\"'s, a \"layer\"'s or a \"unit\"'s");
  }
};

struct SwiftTD {
  PerRun step_size = 0.01, meta_step_size = 1e-3, bound = 0.1, decay = 0.999;
  template <class F>
  static void fields(F&& f) {
    f("step_size", &SwiftTD::step_size, "alpha_0, where every step size begins");
    f("meta_step_size", &SwiftTD::meta_step_size, "theta");
    f("bound", &SwiftTD::bound, "eta: of a step size, and of the rate of learning, the sum of step sizes times squared inputs");
    f("decay", &SwiftTD::decay, "of step sizes where that sum is above its bound, for an input of one, in (0, 1]");
  }
};

// One of the caller's own (Learner::on_pause), which finds the gradients and writes weights.
struct HostOptimizer {
  template <class F>
  static void fields(F&&) {}
};

using Optimizer =
    std::variant<SGD, Adam, AdamW, UPGD, IDBD, Autostep, ObGD, AdaptiveObGD, MetaOptimize, Intentional, SwiftTD, HostOptimizer>;

}  // namespace klopf
