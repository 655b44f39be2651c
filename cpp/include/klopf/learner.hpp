#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "klopf/losses.hpp"
#include "klopf/network.hpp"
#include "klopf/optimizers.hpp"
#include "klopf/rules.hpp"

namespace klopf {

struct StepResult {
  std::vector<double> loss, accuracy;          // [R] accuracy: of a policy, the share of samples that were clipped
  std::vector<std::vector<uint8_t>> replaced;  // of each unit group [R, U]
};
struct History {
  std::vector<double> loss, accuracy;  // [R, epochs]
};
struct Evaluation {
  std::vector<double> loss, accuracy;  // [R]
};
struct RunOptions {
  int64_t batch_size = 100, epochs = 1;
  bool shuffle = true;
  // Called about twice a second between epochs; may throw, and then all runs stand at the same epoch.
  std::function<void()> between{};
  bool allow_host_rules = false;  // rules of the caller's own, which have a turn at every step, and the step waits
};

// A unit that was replaced.
struct Event {
  int run, group, unit;
  int64_t step;  // updates before
  int age;
  float utility;
  int cause;  // index of the rule
};

class Learner {
 public:
  // max_gradient_norm: of a batch's gradient, where there is a limit. events: replacements that are kept in mind, of each run.
  Learner(std::shared_ptr<Network> network, LossSpec loss, Optimizer optimizer, std::vector<Rule> rules = {},
          std::optional<PerRun> max_gradient_norm = {}, int events = 0);

  Network& network() { return *network_; }
  const Network& network() const { return *network_; }
  bool classification() const { return classification_; }
  bool chooses() const;  // whether targets begin with the index of an action
  std::string loss_name() const;
  int64_t target_size() const;  // numbers of a target, where it is not a label
  StepResult step(const Samples& samples) { return std::move(step_later(samples).get()); }
  History run(const Samples& samples, const RunOptions& options = {}) { return std::move(run_later(samples, options).get()); }
  Evaluation evaluate(const Samples& samples) { return std::move(evaluate_later(samples).get()); }
  // The same, not waiting for devices that work on their own. What was handed in may be used again when the call returns.
  Later<StepResult> step_later(const Samples& samples);
  Later<History> run_later(const Samples& samples, const RunOptions& options = {});
  Later<Evaluation> evaluate_later(const Samples& samples);

  // A loss of one's own. Activations and gradients of all runs are kept between the three calls.
  std::vector<float> forward(const Samples& samples);
  DeviceArray forward_on_device(const Samples& samples);                           // the same, left on the network's device
  void backward(const float* grad_output, int64_t count, bool on_device = false);  // [R, count, O]
  std::vector<std::vector<uint8_t>> apply();
  std::vector<Array> gradients() const;
  // Of every weight, named and shaped like state_dict(), for optimizers by which they follow from what is learned.
  std::vector<Array> step_sizes() const;

  // Optimizers and rules of the caller's own have a turn at every step, numbered in their order: called with the number, when what
  // came before in the step is done. Until it returns it may read what the step knows, and write weights and masks.
  void on_pause(std::function<void(std::size_t)> turn) { turn_ = std::move(turn); }
  int64_t batch_now() const { return forward_count_; }
  int64_t updates() const { return blocks_.fetch(step_).front(); }  // so far; of the first run
  std::vector<float> activities_now(std::size_t group) const {
    return of_samples(training_.tape.activities[group], group);
  }  // [R, B, U, S]
  std::vector<float> errors_now(std::size_t group) const { return of_samples(training_.tape.errors[group], group); }  // dL/dy, likewise
  std::vector<Array> gradients_now() const;  // of the whole batch, limited as the optimizer has them
  std::vector<std::vector<uint8_t>> replaced_last() const { return std::move(replaced().get()); }  // at the step before
  void replace_now(std::size_t group, const std::vector<uint8_t>& units);                          // [R, U]

  // Units [R, U] of a group with room (Linear's or Conv2d's `living`) that begin to live, without a change of what the network computes;
  // or that go, their mean contribution, as a rule that watches units has it, into the next layer's biases.
  void add_units(std::size_t group, const std::vector<uint8_t>& units);
  void remove_units(std::size_t group, const std::vector<uint8_t>& units);

  // The last `events` of each run, run by run in their order.
  std::vector<Event> events() const;
  std::vector<int64_t> events_counted() const;  // [R], those that are forgotten included

  void restart();
  std::vector<uint8_t> alive() const;
  std::vector<Array> state() const;
  void load_state(const std::vector<Array>& arrays);
  void check_state(const std::vector<Array>& arrays);  // whether they would be loaded; throws as load_state would

 private:
  void load_state(const std::vector<Array>& arrays, bool write);
  void change_units(const char* where, std::size_t group, const std::vector<uint8_t>& units, bool add);
  // A recorded pass and the judgement of its outputs.
  struct Pass {
    Tape tape;
    Program observe;  // what rules look at between forward and backward
    Program judge;
    Program curve;  // after backward, where an optimizer asks for the curvature
    Ref<double> loss;
    Ref<int32_t> correct, active;
    EpochSums sums;
    Tally tally;
    uint64_t work_bytes = 0;
  };
  std::vector<std::pair<Ref<double>, PerRun>> record(int capacity);
  void place_loss(Pass& pass, WorkLayout& work);
  void record_loss(Pass& pass, WorkLayout& work, int capacity);
  void prepare(Blocks& work, int64_t batch, int workspaces);
  Play play(int run, const Blocks& work, int workspace, const Samples& samples, int64_t first, int64_t count) const;
  Play chunk(const Play& batch, int index) const;
  bool share_runs(int64_t batch) const;  // whether threads share the chunks of a run
  void forward_backward(const Play& batch, int chunk);
  void learn(const Play& batch);
  void finish(const Play& batch);
  template <class F>
  void for_chunks(const Samples& samples, F work);
  Later<std::vector<std::vector<uint8_t>>> replaced() const;
  // Steps in which the caller has turns. batch(run): the play of a run, or of all that are played together.
  bool pauses() const { return !pauses_.empty(); }
  using PlayOf = std::function<Play(int)>;
  void learn_with_turns(const PlayOf& batch, int64_t count);
  void update_with_turns(const PlayOf& batch);
  void expect_turn(const char* name) const;
  StepResult step_with_turns(const Samples& samples);
  History run_with_turns(const Samples& samples, const RunOptions& options);
  std::vector<float> of_samples(Ref<float> values, std::size_t group) const;
  // What is done before and after an epoch of so many samples, and room for it: for `workspaces` and results of `epochs` at a time.
  struct Epoch {
    BeginEpoch begin;
    EndEpoch end;
  };
  Epoch prepare_epochs(const Pass& pass, int64_t samples, bool shuffle, int64_t epochs, int workspaces);

  // The same where all runs are played together.
  Play play_together(const Blocks& work, const Pass& pass) const;
  void learn_together(const Play& play);
  void play_step(const Play& play);
  Later<StepResult> step_together(const Samples& samples);
  Later<History> run_together(const Samples& samples, const RunOptions& options);
  Later<Evaluation> evaluate_together(const Samples& samples);
  void begin_forward(const Samples& samples);
  void forward_together(const Samples& samples);

  std::shared_ptr<Network> network_;
  LossSpec loss_;
  bool classification_, counts_;  // whether targets are labels; whether there is an accuracy
  Ref<double> clip_, entropy_;    // of a policy
  Optimizer optimizer_;
  std::vector<Rule> rules_;
  std::optional<PerRun> max_gradient_norm_;
  EventLog log_{};
  Layout layout_{space_learner};
  Blocks blocks_;
  Ref<int64_t> step_, epoch_;
  Ref<int32_t> alive_;
  std::vector<Ref<uint8_t>> replaced_;   // of each unit group; empty where no rule replaces units
  std::optional<StepSizes> step_sizes_;  // where they follow from what is learned
  std::vector<UnitReplace> begin_;       // of each unit group, for units that are added or removed by hand

  Pass training_, evaluation_;
  Program update_;                           // optimizer, then unit rules
  Program online_backward_, online_update_;  // the same for a single sample; empty where there is nothing of its own for that
  std::vector<std::size_t> pauses_;          // places in update_
  std::function<void(std::size_t)> turn_;
  bool in_turn_ = false;
  int most_chunks_ = 0;            // of a batch, in a workspace
  Blocks thread_work_, run_work_;  // workspaces, for calls that learn and for those that leave their work to the next call
  Blocks evaluation_work_, epoch_work_;
  // Steps that were played before, as graphs from the second time on.
  struct Recorded {
    Play play;
    std::shared_ptr<Graph> graph;
  };
  std::vector<Recorded> recorded_;
  enum class Stage { none, forward, backward } stage_ = Stage::none;
  int64_t forward_count_ = 0;
};

std::vector<std::string> loss_names(), utility_names();
// A counter-based shuffle: the permutation of 0 .. n - 1 of (seed, stream, step). run() uses stream 0.
std::vector<int64_t> permutation(uint64_t seed, uint32_t stream, int64_t step, int64_t n);

}  // namespace klopf
