#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "klopf/network.hpp"
#include "klopf/optimizers.hpp"
#include "klopf/rules.hpp"

namespace klopf {

// What the networks of an agent share, in a space of their own.
struct Shared {
  Ref<double> delta;  // temporal-difference error
  Ref<double> decay;  // of traces, before the gradient of this step
  Ref<double> fade;   // the same while an episode goes on
  Ref<int32_t> cut;   // whether traces begin with this step
  Ref<int32_t> alive,
      active;  // cleared when a number is no longer finite; and as it was when a step began, for devices that play all runs at once
};

// A network that learns from every sample once, as it comes: weights move along the temporal-difference error times eligibility traces of
// the gradients of its outputs (Sutton 1988). Nothing is stored but the last sample's activations.
class TraceLearner {
 public:
  TraceLearner(const std::string& owner, std::shared_ptr<Network> network, const Optimizer& optimizer, const std::vector<Rule>& rules,
               const Shared& shared);

  Network& network() const { return *network_; }
  const Tape& now() const { return now_; }      // of the sample that is learned
  const Tape& ahead() const { return ahead_; }  // of the one that follows
  WorkLayout& work() { return work_; }          // for what is made of its outputs, until complete()
  void complete();

  // Of one run, or of all where they are played together; its samples are still to be given.
  Play play(int run) const;
  void look(const Play& play) const;   // at a sample, whose activations are kept
  void judge(const Play& play) const;  // the sample that follows
  void learn(const Play& play) const;  // from the outputs' gradients, at now().grad_output
  std::vector<float> outputs() const;  // at the sample looked at last [runs, outputs]

  std::vector<Array> step_sizes() const;

  std::vector<Array> state() const;
  void check_state(const std::vector<Array>& arrays) const;
  void load_state(const std::vector<Array>& arrays);

 private:
  std::shared_ptr<Network> network_;
  Layout layout_{space_learner};
  WorkLayout work_;
  Blocks blocks_, workspaces_;
  Tape now_, ahead_;
  Program observe_, update_;
  std::optional<StepSizes> step_sizes_;  // where they follow from what is learned
};

}  // namespace klopf
