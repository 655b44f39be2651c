#pragma once
#include <string>
#include <variant>
#include <vector>

#include "klopf/hyper.hpp"

// Rules that act on units or weights after the optimizer.
namespace klopf {

struct ContinualBackprop {
  PerRun replacement_rate = 1e-4;
  std::string utility = "contribution";
  PerRun utility_decay = 0.99, maturity = 100;
  std::string count_from = "eligible", count_mode = "accumulate";
  bool transfer_mean_to_bias = false, reset_optimizer_state = true;
  std::string init{};
  template <class F>
  static void fields(F&& f) {
    using C = ContinualBackprop;
    f("replacement_rate", &C::replacement_rate, "share of a layer's units replaced at each step, in [0, 1]");
    f("utility", &C::utility, "utility measure: one of klopf.utilities");
    f("utility_decay", &C::utility_decay, "eta of the running utility and mean activity, in [0, 1)");
    f("maturity", &C::maturity, "updates for which a new unit is left alone");
    f("count_from", &C::count_from, "\"eligible\" or \"all\": which units the rate counts");
    f("count_mode", &C::count_mode, "\"accumulate\" fractions of units, or \"bernoulli\": below one a coin, above one truncated");
    f("transfer_mean_to_bias", &C::transfer_mean_to_bias, "add a removed unit's mean contribution to the next layer's biases");
    f("reset_optimizer_state", &C::reset_optimizer_state, "zero what the optimizer keeps for the weights that begin anew");
    f.optional("init", &C::init, "distribution of new incoming weights: an initialiser's name; None: the network's");
  }
};

struct Recruitment {
  PerRun replacement_rate = 1e-3, maturity = 1000, threshold = 0.1, utility_decay = 0.999, reputation_decay = 0.99999, dormancy = 0;
  PerRun growth_period = 0, candidates = PerRun::none(), tolerated_error = PerRun::none(), progress = PerRun::none();
  bool backprop_in_fringe = true, transfer_mean_to_bias = false, reset_optimizer_state = true;
  std::string init{};
  template <class F>
  static void fields(F&& f) {
    using C = Recruitment;
    f("replacement_rate", &C::replacement_rate, "share of a layer's mature fringe units replaced at each step, in [0, 1]");
    f("maturity", &C::maturity, "updates for which a new unit is left alone");
    f("threshold", &C::threshold,
      "reputation from which a unit is of the backbone, where all of a layer together are as many as there are");
    f("utility_decay", &C::utility_decay, "of the running mean and variance of activity, and of the running share, in [0, 1)");
    f("reputation_decay", &C::reputation_decay, "of reputation that is above the running share, in [0, 1)");
    f("dormancy", &C::dormancy,
      "a unit whose running variance, over its layer's mean, is below this loses its reputation as fast as it was earned; 0: none does");
    f("growth_period", &C::growth_period,
      "updates from one look at the error, which may add a unit to a layer with room, to the next; 0: none");
    f.optional("candidates", &C::candidates, "units that the fringe should have: one is added only where it has fewer; None: 1");
    f.optional("tolerated_error", &C::tolerated_error, "running loss up to which no unit is added; None: 0");
    f.optional("progress", &C::progress,
               "share by which the running loss must have fallen since the last look, else a unit is added; None: 0.05");
    f("backprop_in_fringe", &C::backprop_in_fringe,
      "whether incoming weights of the fringe follow the loss; else goals, and being replaced, are all that changes them");
    f("transfer_mean_to_bias", &C::transfer_mean_to_bias, "add a removed unit's mean contribution to the next layer's biases");
    f("reset_optimizer_state", &C::reset_optimizer_state, "zero what the optimizer keeps for the weights that begin anew");
    f.optional("init", &C::init, "distribution of new incoming weights: an initialiser's name; None: the network's");
  }
};

struct ReDo {
  PerRun threshold = 0.1, period = 100;
  bool reset_optimizer_state = false;
  std::string init{};
  template <class F>
  static void fields(F&& f) {
    f("threshold", &ReDo::threshold, "tau: a unit is dormant whose mean |activity|, over the layer's mean, is at most this");
    f("period", &ReDo::period, "updates from one look at the units to the next");
    f("reset_optimizer_state", &ReDo::reset_optimizer_state, "zero what the optimizer keeps for the weights that begin anew");
    f.optional("init", &ReDo::init, "distribution of new incoming weights: an initialiser's name; None: the network's");
  }
};

struct SNR {
  PerRun percentile = 0.99, period = 1000, threshold = 1000, longest = 20000;
  bool reset_optimizer_state = true;
  std::string init{};
  template <class F>
  static void fields(F&& f) {
    f("percentile", &SNR::percentile, "of a unit's silences that it is replaced after, in (0, 1)");
    f("period", &SNR::period, "updates from one look at the silences to the next");
    f("threshold", &SNR::threshold, "samples of silence after which a unit is replaced before the first look");
    f("longest", &SNR::longest, "samples that this may become");
    f("reset_optimizer_state", &SNR::reset_optimizer_state, "zero what the optimizer keeps for the weights that begin anew");
    f.optional("init", &SNR::init, "distribution of new incoming weights: an initialiser's name; None: the network's");
  }
};

struct Rewire {
  PerRun replacement_rate = 1e-4, maturity = 1000;
  bool reset_optimizer_state = true;
  template <class F>
  static void fields(F&& f) {
    f("replacement_rate", &Rewire::replacement_rate, "share of a unit's mature wires dropped at each step, in [0, 1]");
    f("maturity", &Rewire::maturity, "updates for which a new wire is left alone");
    f("reset_optimizer_state", &Rewire::reset_optimizer_state, "zero what the optimizer keeps for the weights that begin anew");
  }
};

// A goal of units' own.
struct Goal {
  std::string goal = "active";
  PerRun step_size = 1e-3, decay = 0.999, share = PerRun::none(), correlation_decay = PerRun::none();
  std::string units = "all";
  std::vector<int> layers{};
  std::string by{};
  PerRun noise = PerRun::none(), hold = PerRun::none(), trace_decay = PerRun::none(), baseline_decay = PerRun::none();
  template <class F>
  static void fields(F&& f) {
    f("goal", &Goal::goal, "\"active\", \"unit_variance\", \"decorrelated\" or \"listened\"");
    f("step_size", &Goal::step_size, "how fast incoming weights and bias follow");
    f("decay", &Goal::decay, "of running statistics of activity, in [0, 1)");
    f.optional("share", &Goal::share, "of \"active\": on how many samples at least, in (0, 1]; None: a tenth");
    f.optional("correlation_decay", &Goal::correlation_decay,
               "of \"decorrelated\", and of \"listened\" by gradient: of running correlations, in [0, 1); None: 0.995");
    f("units", &Goal::units, "\"all\", or the \"fringe\", which klopf.Recruitment says");
    f.optional("layers", &Goal::layers, "whose goal it is, by place in Network.units; None: of all that can have it");
    f.optional("by", &Goal::by, "of \"listened\": \"gradient\" of what would be heard, or \"perturbation\"; None: gradient");
    f.optional("noise", &Goal::noise, "of perturbation: its norm, where that of a unit's incoming weights is 1; None: 0.3");
    f.optional("hold", &Goal::hold, "of perturbation: updates from one perturbation to the next; None: 1");
    f.optional("trace_decay", &Goal::trace_decay, "of perturbation: of the trace of perturbations, in [0, 1); None: 0");
    f.optional("baseline_decay", &Goal::baseline_decay, "of perturbation: of what a unit is used to, in [0, 1); None: 0.99");
  }
};

struct ShrinkAndPerturb {
  PerRun noise = 1e-5;
  template <class F>
  static void fields(F&& f) {
    f("noise", &ShrinkAndPerturb::noise, "sigma of the normal noise added to every weight and bias after each step");
  }
};

// A rule of the caller's own (Learner::on_pause), which may say which units are to be replaced.
struct HostRule {
  bool replaces = true, transfer_mean_to_bias = false, reset_optimizer_state = true;
  std::string init{};
  template <class F>
  static void fields(F&& f) {
    f("replaces", &HostRule::replaces, "whether it says which units are replaced");
    f("transfer_mean_to_bias", &HostRule::transfer_mean_to_bias, "add a removed unit's mean contribution to the next layer's biases");
    f("reset_optimizer_state", &HostRule::reset_optimizer_state, "zero what the optimizer keeps for the weights that begin anew");
    f.optional("init", &HostRule::init, "distribution of new incoming weights: an initialiser's name; None: the network's");
  }
};

using Rule = std::variant<ContinualBackprop, Recruitment, ReDo, SNR, Rewire, Goal, ShrinkAndPerturb, HostRule>;

}  // namespace klopf
