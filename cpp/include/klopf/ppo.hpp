#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "klopf/learner.hpp"
#include "klopf/normalise.hpp"

namespace klopf {

struct PpoOptions {
  ClippedPolicy loss{};
  Optimizer optimizer = Adam{.step_size = 1e-4};
  std::vector<Rule> rules{};
  int64_t steps = 2048, epochs = 10, batch_size = 128;
  PerRun discount = 0.99, trace_decay = 0.95;
  std::string truncation = "bootstrap";       // or "terminal"
  std::optional<PerRun> max_gradient_norm{};  // of each network's by itself
  bool normalise_observations = false, normalise_rewards = false;
};

// What one learn() did, means over each epoch.
struct PpoUpdate {
  std::vector<double> policy_loss, value_loss, clipped;  // [R, epochs]
};

// R independent agents that learn by proximal policy optimisation (Schulman et al. 2017), each from its own steps: act, observe, and
// when the buffer is full, learn. Policy and value are networks with a learner each; an Adam of both is one Adam.
class Ppo {
 public:
  Ppo(std::shared_ptr<Network> policy, std::shared_ptr<Network> value, PpoOptions options);

  const PpoOptions& options() const { return options_; }
  Network& policy() { return policy_.network(); }
  Network& value() { return value_.network(); }
  const Network& policy() const { return policy_.network(); }
  int runs() const { return runs_; }
  int64_t action_size() const { return action_size_; }  // numbers of an action: as many as outputs, or 1, its index
  int64_t filled() const { return filled_; }            // steps that the buffer holds
  bool full() const { return filled_ == options_.steps; }

  // Actions [R, action size] at observations [R, inputs]; 0 in runs that no longer learn, or are no longer finite.
  std::vector<float> act(const double* observations);
  // The same without chance, the mean or the likeliest action, and nothing remembered.
  std::vector<float> choose(const double* observations);
  // What followed, [R]; final_observations [R, inputs]: what the step led to, before any reset.
  void observe(const double* rewards, const uint8_t* terminated, const uint8_t* truncated, const double* final_observations);
  // Episodes end here, as if they had been truncated: for environments that begin anew.
  void cut();
  // All epochs on a full buffer, which is empty then. `between` is called about twice a second; where it throws, some epochs were done,
  // and the buffer is still full.
  PpoUpdate learn(const std::function<void()>& between = {});

  std::vector<float> recent(int64_t count) const;               // up to so many of the latest observations [R, n, inputs], oldest first
  const std::vector<uint8_t>& alive() const { return alive_; }  // [R] whether both networks still learn
  std::vector<Array> state() const;
  void load_state(const std::vector<Array>& arrays);

 private:
  struct Part {  // an array of the buffer
    const char* name;
    Type type;
    int64_t size;  // of a step
    void* data;
  };
  std::vector<Part> parts() const;
  void look_who_is_alive();
  void see(int64_t run, const double* observation, float* out, bool keep);  // as the networks see it; `keep`: counted from now on

  PpoOptions options_;
  Learner policy_, value_;
  int runs_;
  int64_t inputs_, action_size_;
  int64_t filled_ = 0, step_ = 0;  // steps in the buffer, and in all
  bool acted_ = false;             // an action waits for what follows
  // The buffer, [R, steps, ...]. A target is an action, the logarithm of its probability, its advantage.
  std::vector<float> observations_, final_observations_, targets_;
  std::vector<double> rewards_;
  std::vector<uint8_t> terminated_, truncated_;
  std::vector<uint8_t> alive_;
  RunningMoments observation_moments_;
  RewardScale reward_scale_;
  // Acting: the policy's forward pass for one sample.
  Tape tape_;
  DrawAction draw_{};
  Blocks work_;
};

}  // namespace klopf
