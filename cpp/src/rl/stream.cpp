#include "klopf/stream.hpp"

#include <algorithm>
#include <cmath>

#include "klopf/error.hpp"
#include "klopf/threads.hpp"
#include "learn/record.hpp"
#include "rules/policies.hpp"

namespace klopf {
namespace {

void expect(bool holds, const std::string& claim) {
  if (!holds) throw Error("[stream] " + claim);
}

const std::vector<std::string> methods{"ac", "q", "sarsa", "td"};

}  // namespace

StreamAgent::StreamAgent(std::shared_ptr<Network> policy, std::shared_ptr<Network> value, StreamOptions options)
    : options_(std::move(options)) {
  expect(value != nullptr, "value must be given, got none");
  const std::string& method = options_.method;
  static_cast<void>(choice("stream", "method", method, methods));
  const bool actor = method == "ac";
  expect(actor == (policy != nullptr), actor ? "an actor-critic needs a policy" : "only an actor-critic has a policy");
  runs_ = value->runs();
  inputs_ = value->input_size();
  const int outputs = static_cast<int>(value->outputs());
  if (actor || method == "td") expect(outputs == 1, "value must have one output, got " + std::to_string(outputs));
  const int distribution = choice("stream", "distribution", options_.distribution, {"softplus", "categorical"});
  if (policy) {
    const NetworkOptions &p = policy->options(), &v = value->options();
    expect(p.seeds == v.seeds && p.input_shape == v.input_shape && p.device == v.device,
           "policy and value must have the same seeds, input_shape and device");
    expect(p.stream != v.stream, "policy and value draw the same weights: make one of them with stream=1");
    expect(distribution == 1 || policy->outputs() % 2 == 0,
           "a policy by softplus has two outputs for each number of an action, got " + std::to_string(policy->outputs()));
  }
  expect(!std::holds_alternative<SwiftTD>(options_.optimizer), "SwiftTD is of values, and no policy's");
  check_number("stream", "discount", options_.discount, runs_, 0, 1);
  check_number("stream", "trace_decay", options_.trace_decay, runs_, 0, 1);
  check_number("stream", "entropy", options_.entropy, runs_, 0, HUGE_VAL);
  for (const double e : {options_.epsilon, options_.last_epsilon})
    expect(e >= 0 && e <= 1, "epsilon must be in [0, 1], got " + number_text(e));
  expect(options_.exploration_steps >= 1, "exploration_steps must be at least 1, got " + std::to_string(options_.exploration_steps));
  static_cast<void>(choice("stream", "trace_cut", options_.trace_cut, {"reference", "watkins"}));
  static_cast<void>(choice("stream", "first_action", options_.first_action, {"drawn", "kept"}));
  static_cast<void>(choice("stream", "truncation", options_.truncation, {"terminal", "bootstrap"}));
  static_cast<void>(choice("stream", "reward_trace", options_.reward_trace, {"reference", "episode"}));
  expect(options_.time_limit >= 0, "time_limit must be at least 1, got " + std::to_string(options_.time_limit));
  expect(observations() >= 1, "with a time_limit the networks have one input more than an observation has numbers, got 1 in all");

  const Distribution kind = distribution == 0 ? Distribution::softplus : Distribution::categorical;
  action_size_ = policy ? klopf::action_size(kind, static_cast<int>(policy->outputs())) : 1;
  shared_ = {layout_.add<double>("delta"), layout_.add<double>("decay"),  layout_.add<double>("fade"),
             layout_.add<int32_t>("cut"),  layout_.add<int32_t>("alive"), layout_.add<int32_t>("active")};
  reward_ = layout_.add<double>("reward");
  discount_ = layout_.add<double>("discount");
  entropy_ = layout_.add<double>("entropy");
  epsilon_ = layout_.add<double>("epsilon");
  action_ = layout_.add<float>("action", {action_size_ + 1});
  index_ = layout_.add<int32_t>("index");
  next_index_ = layout_.add<int32_t>("next_index");
  greedy_ = layout_.add<int32_t>("greedy");

  value_.emplace("stream", value, options_.value_optimizer, options_.rules, shared_);
  error_ = {method == "q"       ? Judge::best_action
            : method == "sarsa" ? Judge::next_action
                                : Judge::state,
            outputs,
            value_->now().output,
            value_->ahead().output,
            value_->now().grad_output,
            reward_,
            discount_,
            shared_.delta,
            index_,
            next_index_,
            shared_.alive,
            shared_.active};
  const Ref<uint64_t> seed = value->seed();
  choose_ = {outputs, 0, value_->now().output, epsilon_, index_, greedy_, seed};
  choose_ahead_ = {outputs, 0, value_->ahead().output, epsilon_, next_index_, greedy_, seed};
  if (policy) {
    policy_.emplace("stream", policy, options_.optimizer, options_.rules, shared_);
    const int32_t of_policy = static_cast<int32_t>(policy->outputs());
    gradient_ = {kind, of_policy, policy_->now().output, policy_->now().grad_output, action_, shared_.delta, entropy_};
    draw_ = {kind,    of_policy,     0, policy_->now().output, {}, policy_->work().take<double>(static_cast<std::size_t>(of_policy)),
             action_, policy->seed()};
    policy_->complete();
  }
  value_->complete();
  blocks_ = Blocks(runs_, layout_.bytes(), value->backend().memory());
  blocks_.on_host(true);
  for (int r = 0; r < runs_; ++r) {
    *blocks_.at(shared_.alive, r) = *blocks_.at(shared_.active, r) = 1;
    *blocks_.at(entropy_, r) = options_.entropy[r];
    *blocks_.at(shared_.fade, r) = options_.discount[r] * options_.trace_decay[r];
  }
  const std::size_t numbers = static_cast<std::size_t>(runs_ * inputs_);
  next_.resize(numbers), first_.resize(numbers);
  cut_.assign(static_cast<std::size_t>(runs_), 1);
  time_.resize(static_cast<std::size_t>(runs_));
  if (options_.normalise_observations) moments_ = RunningMoments(runs_, observations());
  if (options_.scale_rewards) scale_ = RewardScale(runs_, options_.reward_trace == "reference");
}

double StreamAgent::epsilon_now() const {
  const double share = std::min(1.0, static_cast<double>(step_) / static_cast<double>(options_.exploration_steps));
  return options_.epsilon + (options_.last_epsilon - options_.epsilon) * share;
}

StreamAgent::Plays StreamAgent::plays(int run) const {
  Plays plays;
  const auto share = [&](Play& play) {
    play.base[space_agent] = value_->network().together() ? blocks_.to_play() : blocks_.block(run);
    play.stride[space_agent] = blocks_.stride();
    if (value_->network().together()) play.active = shared_.active;
  };
  share(plays.value = value_->play(run));
  if (policy_) share(plays.policy = policy_->play(run));
  return plays;
}

// work(plays, run) for each run that is alive; or once for all, where they are played together.
template <class F>
void StreamAgent::each_run(F work) const {
  if (value_->network().together()) {
    Plays all = plays(0);
    return work(all, 0);
  }
  auto one = [&](int64_t run, int) {
    if (!*blocks_.at(shared_.alive, static_cast<int>(run))) return;
    Plays of_run = plays(static_cast<int>(run));
    work(of_run, static_cast<int>(run));
  };
  if (runs_ == 1) one(0, 0);
  else parallel_for(runs_, get_threads(), one);
}

// The networks' next sample.
void StreamAgent::give(Plays& plays, int run, const std::vector<float>& samples) const {
  Samples given;
  given.x = samples.data();
  given.count = 1;
  given.per_run = true;
  const auto put = [&](const TraceLearner& learner, Play& play) {
    Network& network = learner.network();
    play.batch = network.batch(network.together() ? network.stage(given) : given, run, 0, 1);
  };
  put(*value_, plays.value);
  if (policy_) put(*policy_, plays.policy);
}

// Devices that work on their own play each network's operations in an order of its own: what comes next of one waits for the other.
void StreamAgent::follow(const TraceLearner& first, const TraceLearner& then) const {
  if (first.network().together()) first.network().backend().memory()->let_follow(then.network().backend().memory()->stream());
}

// From the networks' passes at the sample and ahead.
void StreamAgent::update(const Plays& plays) {
  Backend& backend = value_->network().backend();
  backend.td_error(error_, plays.value);
  const auto lives = [&] { return value_->network().together() || *plays.value.at(shared_.alive); };
  if (lives()) value_->learn(plays.value);
  if (!policy_ || !lives()) return;
  follow(*value_, *policy_);
  policy_->network().backend().policy_gradient(gradient_, plays.policy);
  policy_->learn(plays.policy);
  follow(*policy_, *value_);
}

// At the sample where the next action is taken.
void StreamAgent::look(Plays& plays, int run) const {
  give(plays, run, first_);
  value_->look(plays.value);
  if (policy_) policy_->look(plays.policy);
}

// And that action.
void StreamAgent::act(const Plays& plays) const {
  if (policy_) {
    DrawAction draw = draw_;
    draw.step = step_;
    follow(*value_, *policy_);
    policy_->network().backend().draw_action(draw, plays.policy);
    follow(*policy_, *value_);
  } else if (acts()) {
    ChooseAction choose = choose_;
    choose.step = 2 * step_;
    value_->network().backend().choose_action(choose, plays.value);
  }
}

std::vector<float> StreamAgent::actions() const {
  blocks_.on_host(false);
  if (!acts()) {
    std::vector<float> values = value_->outputs();
    for (int run = 0; run < runs_; ++run)
      if (!*blocks_.at(shared_.alive, run)) values[static_cast<std::size_t>(run)] = 0;
    return values;
  }
  std::vector<float> all(static_cast<std::size_t>(runs_ * action_size_));
  for (int run = 0; run < runs_; ++run) {
    float* to = all.data() + run * action_size_;
    const float* drawn = blocks_.at(action_, run);
    if (!*blocks_.at(shared_.alive, run)) std::fill_n(to, action_size_, 0.0f);
    else if (policy_) std::copy_n(drawn, action_size_, to);
    else *to = static_cast<float>(*blocks_.at(index_, run));
  }
  return all;
}

void StreamAgent::see(int run, const double* observation, float* out) {
  if (options_.time_limit > 0)
    out[observations()] =
        static_cast<float>(static_cast<double>(time_[static_cast<std::size_t>(run)]) / static_cast<double>(options_.time_limit) - 0.5);
  if (moments_.present()) return moments_.normalise(run, observation, out, true);
  for (int64_t i = 0; i < observations(); ++i) out[i] = static_cast<float>(observation[i]);
}

// Sums of their squares are to be finite.
void StreamAgent::check_size(const double* observations, int64_t count) const {
  for (int64_t i = 0; i < count; ++i)
    if (!(std::abs(observations[i]) <= 1e15))
      throw Error("[stream] observations must be at most 1e15 in size, got " + number_text(observations[i]));
}

// The activations, of which nothing is stored.
void StreamAgent::look_again() {
  each_run([&](Plays& plays, int run) { look(plays, run); });
}

std::vector<float> StreamAgent::begin(const double* observations) {
  check_size(observations, runs_ * this->observations());
  blocks_.on_host(true);
  time_.assign(time_.size(), 0);
  scale_.begin();
  for (int run = 0; run < runs_; ++run) {
    see(run, observations + run * this->observations(), first_.data() + run * inputs_);
    *blocks_.at(epsilon_, run) = epsilon_now();
  }
  std::fill(cut_.begin(), cut_.end(), uint8_t{1});
  each_run([&](Plays& plays, int run) {
    look(plays, run);
    act(plays);
  });
  begun_ = true;
  return actions();
}

// Before an update: what it depends on beside samples.
void StreamAgent::prepare(int run, double reward, bool terminal, bool ends) {
  const std::size_t at = static_cast<std::size_t>(run);
  *blocks_.at(shared_.active, run) = *blocks_.at(shared_.alive, run);
  const bool watkins = options_.method == "q" && options_.trace_cut == "watkins" && !*blocks_.at(greedy_, run);
  const double discount = options_.discount[run];
  *blocks_.at(reward_, run) = reward;
  *blocks_.at(discount_, run) = terminal ? 0.0 : discount;
  const bool cut = cut_[at] || watkins;
  *blocks_.at(shared_.cut, run) = cut;
  *blocks_.at(shared_.decay, run) = cut ? 0.0 : *blocks_.at(shared_.fade, run);
  *blocks_.at(epsilon_, run) = epsilon_now();
  cut_[at] = ends || (options_.method == "q" && options_.trace_cut == "reference" && !*blocks_.at(greedy_, run));
}

std::vector<float> StreamAgent::step(const double* observations, const double* rewards, const uint8_t* terminated, const uint8_t* truncated,
                                     const double* final_observations) {
  expect(begun_, "step() needs a begin() before it");
  check_size(observations, runs_ * this->observations());
  if (final_observations) check_size(final_observations, runs_ * this->observations());
  const bool bootstrap = options_.truncation == "bootstrap", sarsa = options_.method == "sarsa";
  const bool keeps = sarsa && options_.first_action == "kept";
  for (int run = 0; run < runs_ && !final_observations; ++run) {
    expect(!bootstrap || !truncated[run] || terminated[run],
           "final_observation must be given where an episode is truncated, for its value");
    expect(!keeps || !(terminated[run] || truncated[run]), "final_observation must be given where an episode ends, for the action kept");
  }
  blocks_.on_host(true);
  std::vector<uint8_t> ended(static_cast<std::size_t>(runs_));
  for (int run = 0; run < runs_; ++run) {
    const int64_t given = run * this->observations(), at = run * inputs_;
    int64_t& time = time_[static_cast<std::size_t>(run)];
    ++time;
    const bool ends = terminated[run] || truncated[run];
    ended[static_cast<std::size_t>(run)] = ends;
    const double reward = scale_.present() ? scale_(run, rewards[run], ends, options_.discount[run]) : rewards[run];
    if (ends) {
      if (final_observations) see(run, final_observations + given, next_.data() + at);
      time = 0;
    }
    see(run, observations + given, first_.data() + at);
    if (!ends) std::copy_n(first_.data() + at, inputs_, next_.data() + at);
    prepare(run, reward, terminated[run] || (ends && !bootstrap), ends);
  }
  each_run([&](Plays& plays, int run) {
    give(plays, run, next_);
    value_->judge(plays.value);
    if (sarsa) {
      ChooseAction choose = choose_ahead_;
      choose.step = 2 * step_ + 1;
      value_->network().backend().choose_action(choose, plays.value);
    }
    update(plays);
  });
  ++step_;
  each_run([&](Plays& plays, int run) {
    look(plays, run);
    act(plays);
  });
  if (sarsa) {
    blocks_.on_host(true);
    for (int run = 0; run < runs_; ++run)
      if (keeps || !ended[static_cast<std::size_t>(run)]) *blocks_.at(index_, run) = *blocks_.at(next_index_, run);
  }
  return actions();
}

std::vector<double> StreamAgent::learn(const double* observations, const double* actions, const double* rewards,
                                       const double* next_observations, const uint8_t* terminated, const uint8_t* truncated,
                                       const double* next_actions, const uint8_t* greedy) {
  const std::string& method = options_.method;
  expect(acts() == (actions != nullptr), acts() ? "action must be given, got none" : "action must not be given where nothing is chosen");
  expect((method == "sarsa") == (next_actions != nullptr),
         method == "sarsa" ? "next_action must be given for sarsa, got none" : "next_action must be given for sarsa alone");
  expect(method == "q" || !greedy, "greedy must be given for q alone");
  check_size(observations, runs_ * inputs_);
  check_size(next_observations, runs_ * inputs_);
  const int64_t known = policy_ ? policy_->network().outputs() : value_->network().outputs();
  const auto check_index = [&](double index) {
    expect(index >= 0 && index < static_cast<double>(known) && index == std::floor(index),
           "actions must be whole numbers from 0 to " + std::to_string(known - 1) + ", got " + number_text(index));
  };
  for (int run = 0; run < runs_; ++run) {
    if (acts() && chooses()) check_index(actions[run]);
    if (next_actions) check_index(next_actions[run]);
  }
  blocks_.on_host(true);
  for (int64_t i = 0; i < runs_ * inputs_; ++i) {
    first_[static_cast<std::size_t>(i)] = static_cast<float>(observations[i]);
    next_[static_cast<std::size_t>(i)] = static_cast<float>(next_observations[i]);
  }
  for (int run = 0; run < runs_; ++run) {
    for (int64_t i = 0; i < action_size_ && acts(); ++i) blocks_.at(action_, run)[i] = static_cast<float>(actions[run * action_size_ + i]);
    if (acts() && chooses()) *blocks_.at(index_, run) = static_cast<int32_t>(actions[run]);
    if (next_actions) *blocks_.at(next_index_, run) = static_cast<int32_t>(next_actions[run]);
    *blocks_.at(greedy_, run) = greedy ? greedy[run] : 1;
    prepare(run, rewards[run], terminated[run], terminated[run] || (truncated && truncated[run]));
  }
  each_run([&](Plays& plays, int run) {
    look(plays, run);
    give(plays, run, next_);
    value_->judge(plays.value);
    update(plays);
  });
  ++step_;
  begun_ = false;
  return blocks_.fetch(shared_.delta);
}

std::vector<uint8_t> StreamAgent::alive() const {
  const std::vector<int32_t> all = blocks_.fetch(shared_.alive);
  return {all.begin(), all.end()};
}

}  // namespace klopf
