#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "klopf/normalise.hpp"
#include "klopf/traces.hpp"

namespace klopf {

struct StreamOptions {
  std::string method = "ac";                 // "ac", "q", "sarsa" or "td"
  std::string distribution = "softplus";     // of actor-critics: or "categorical"
  Optimizer optimizer = ObGD{.kappa = 3.0};  // of the policy
  Optimizer value_optimizer = ObGD{.kappa = 2.0};
  std::vector<Rule> rules{};
  PerRun discount = 0.99, trace_decay = 0.8, entropy = 0.01;
  double epsilon = 1.0, last_epsilon = 0.01;  // of actions drawn at random, falling over so many steps
  int64_t exploration_steps = 1;
  std::string trace_cut = "reference";     // of q: after the update of an action that is not the best, or "watkins", before it
  std::string first_action = "drawn";      // of sarsa, after an episode's end: or "kept", the one drawn for its last observation
  std::string truncation = "terminal";     // or "bootstrap"
  std::string reward_trace = "reference";  // the reward that ends an episode counts in the next one's sum; or in its own, "episode"
  int64_t time_limit = 0;                  // above 0: t / time_limit - 1/2 is one more input, t steps into the episode
  bool normalise_observations = true, scale_rewards = true;
};

// R independent agents that learn from every step once, as it comes (Elsayed, Vasan and Mahmood 2024): actor-critics, Q(lambda),
// SARSA(lambda), or prediction by TD(lambda).
class StreamAgent {
 public:
  // policy: of actor-critics, else absent.
  StreamAgent(std::shared_ptr<Network> policy, std::shared_ptr<Network> value, StreamOptions options);

  const StreamOptions& options() const { return options_; }
  int runs() const { return runs_; }
  int64_t inputs() const { return inputs_; }                                    // of the networks
  int64_t observations() const { return inputs_ - (options_.time_limit > 0); }  // numbers of one
  bool acts() const { return options_.method != "td"; }
  bool chooses() const { return !policy_ || options_.distribution == "categorical"; }  // whether an action is an index
  int64_t action_size() const { return action_size_; }

  // The first observations [R, observations] of episodes: actions [R, action size]; of prediction values.
  std::vector<float> begin(const double* observations);
  // What followed: the same. final_observations: what the step led to, where an episode ended and the next one's first observation is
  // given; absent: nothing is known of it.
  std::vector<float> step(const double* observations, const double* rewards, const uint8_t* terminated, const uint8_t* truncated,
                          const double* final_observations);
  // One update alone, from transitions of the caller's own [R, inputs]; nothing is normalised, and no action is drawn. Where truncated,
  // the next sample begins an episode, and this one goes on in the next observation's value. actions: not of TD. next_actions: of SARSA.
  // greedy: of Q, whether the actions were the best. Returns temporal-difference errors [R].
  std::vector<double> learn(const double* observations, const double* actions, const double* rewards, const double* next_observations,
                            const uint8_t* terminated, const uint8_t* truncated, const double* next_actions, const uint8_t* greedy);

  const std::vector<float>& seen() const { return first_; }  // where the next action is taken [R, inputs]
  std::vector<uint8_t> alive() const;
  std::vector<Array> step_sizes() const;  // of every weight, with the network's name before its own
  std::vector<Array> state() const;
  void load_state(const std::vector<Array>& arrays);

 private:
  struct Plays {
    Play policy, value;
  };
  Plays plays(int run) const;
  template <class F>
  void each_run(F work) const;
  void give(Plays& plays, int run, const std::vector<float>& samples) const;
  void follow(const TraceLearner& first, const TraceLearner& then) const;
  void update(const Plays& plays);
  void look(Plays& plays, int run) const;
  void look_again();
  void act(const Plays& plays) const;
  void check_size(const double* observations, int64_t count) const;
  void see(int run, const double* observation, float* out);
  void prepare(int run, double reward, bool terminal, bool ends);
  std::vector<float> actions() const;
  double epsilon_now() const;
  std::vector<Array> own_state() const;
  template <class Of>
  void of_both(std::vector<Array>& all, Of of) const;

  StreamOptions options_;
  int runs_;
  int64_t inputs_, action_size_;
  Layout layout_{space_agent};
  Shared shared_;
  Ref<double> reward_, discount_, entropy_, epsilon_;
  Ref<float> action_;  // numbers of an action, and the logarithm of its probability
  Ref<int32_t> index_, next_index_, greedy_;
  std::optional<TraceLearner> policy_;
  std::optional<TraceLearner> value_;
  TdError error_{};
  PolicyGradient gradient_{};
  DrawAction draw_{};
  ChooseAction choose_{}, choose_ahead_{};
  Blocks blocks_;

  int64_t step_ = 0;
  bool begun_ = false;
  std::vector<float> next_, first_;  // as the networks see them [R, inputs]: what followed; and where the next action is taken
  std::vector<uint8_t> cut_;         // [R] traces, before the next gradient
  std::vector<int64_t> time_;        // [R] steps into the episode
  RunningMoments moments_;
  RewardScale scale_;
};

}  // namespace klopf
