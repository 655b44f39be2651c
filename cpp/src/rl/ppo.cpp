#include "klopf/ppo.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <iterator>
#include <map>

#include "klopf/advantages.hpp"
#include "klopf/error.hpp"
#include "klopf/threads.hpp"
#include "learn/record.hpp"
#include "rules/policies.hpp"

namespace klopf {
namespace {

void expect(bool holds, const std::string& claim) {
  if (!holds) throw Error("[ppo] " + claim);
}

// Both networks are there, of the same runs, and do not draw the same weights.
std::shared_ptr<Network> checked(std::shared_ptr<Network> policy, const Network* value) {
  expect(policy && value, "policy and value must be given, got none");
  const NetworkOptions &p = policy->options(), &v = value->options();
  expect(p.seeds == v.seeds, "policy and value must have the same seeds");
  expect(p.input_shape == v.input_shape, "policy and value must have the same input_shape");
  expect(p.device == v.device, "policy and value must be on the same device, got " + p.device + " and " + v.device);
  expect(value->outputs() == 1, "value must have one output, got " + std::to_string(value->outputs()));
  expect(p.stream != v.stream, "policy and value draw the same weights: make one of them with stream=1");
  return policy;
}

void expect_decay(const char* name, const PerRun& value, int runs) {
  const std::size_t count = value.values.size();
  expect(count == 1 || count == static_cast<std::size_t>(runs),
         std::string(name) + " must be one number or " + std::to_string(runs) + " (one for each run), got " + std::to_string(count));
  for (const double v : value.values) expect(v >= 0 && v <= 1, std::string(name) + " must be in [0, 1], got " + std::to_string(v));
}

}  // namespace

Ppo::Ppo(std::shared_ptr<Network> policy, std::shared_ptr<Network> value, PpoOptions options)
    : options_(std::move(options)),
      policy_(checked(policy, value.get()), options_.loss, options_.optimizer, options_.rules, options_.max_gradient_norm),
      value_(value, "mse", options_.optimizer, options_.rules, options_.max_gradient_norm),
      runs_(policy->runs()),
      inputs_(policy->input_size()),
      action_size_(policy_.target_size() - 2) {
  for (const auto& [name, number] : {std::pair{"steps", options_.steps}, {"epochs", options_.epochs}, {"batch_size", options_.batch_size}})
    expect(number >= 1 && number <= INT32_MAX, std::string(name) + " must be from 1 to 2147483647, got " + std::to_string(number));
  expect_decay("discount", options_.discount, runs_);
  expect_decay("trace_decay", options_.trace_decay, runs_);
  static_cast<void>(choice("ppo", "truncation", options_.truncation, {"bootstrap", "terminal"}));

  const std::size_t places = static_cast<std::size_t>(runs_ * options_.steps);
  observations_.resize(places * static_cast<std::size_t>(inputs_));
  final_observations_.resize(observations_.size());
  targets_.resize(places * static_cast<std::size_t>(action_size_ + 2));
  rewards_.resize(places);
  terminated_.resize(places);
  if (options_.normalise_observations) observation_moments_ = RunningMoments(runs_, inputs_);
  if (options_.normalise_rewards) reward_scale_ = RewardScale(runs_);
  truncated_.resize(places);

  WorkLayout work;
  tape_ = policy->record(work, 1);
  draw_ = {
      distribution_of(options_.loss), static_cast<int32_t>(policy->outputs()), 0, tape_.output, policy->log_std(), {}, {}, policy->seed()};
  draw_.inverse_std = work.take<double>(static_cast<std::size_t>(policy->outputs()));
  draw_.action = work.take<float>(static_cast<std::size_t>(action_size_ + 1));
  const int workspaces = policy->together() ? runs_ : std::min(runs_, get_threads());
  work_ = Blocks(workspaces, work.bytes(), policy->backend().memory(), false);
  look_who_is_alive();
}

void Ppo::see(int64_t run, const double* observation, float* out, bool keep) {
  if (observation_moments_.present()) return observation_moments_.normalise(static_cast<int>(run), observation, out, keep);
  for (int64_t i = 0; i < inputs_; ++i) out[i] = static_cast<float>(observation[i]);
}

std::vector<float> Ppo::choose(const double* observations) {
  std::vector<float> seen(static_cast<std::size_t>(runs_ * inputs_));
  for (int64_t run = 0; run < runs_; ++run) see(run, observations + run * inputs_, seen.data() + run * inputs_, false);
  Samples samples;
  samples.x = seen.data();
  samples.count = 1;
  samples.per_run = true;
  std::vector<float> outputs = policy().infer(samples);
  for (int64_t run = 0; run < runs_; ++run)
    if (!alive_[static_cast<std::size_t>(run)]) std::fill_n(outputs.begin() + run * draw_.outputs, draw_.outputs, 0.0f);
  if (draw_.distribution == Distribution::gaussian) return outputs;
  std::vector<float> actions;
  for (auto first = outputs.begin(); first != outputs.end(); first += draw_.outputs)
    actions.push_back(static_cast<float>(std::max_element(first, first + draw_.outputs) - first));
  return actions;
}

std::vector<float> Ppo::act(const double* observations) {
  expect(!full(), "the buffer is full: learn() comes before the next act()");
  std::vector<float> seen(static_cast<std::size_t>(runs_ * inputs_));
  for (int64_t run = 0; run < runs_; ++run) see(run, observations + run * inputs_, seen.data() + run * inputs_, !acted_);
  Network& net = policy_.network();
  Samples samples;
  samples.x = seen.data();
  samples.count = 1;
  samples.per_run = true;
  draw_.step = step_;
  std::vector<float> actions(static_cast<std::size_t>(runs_ * action_size_));
  const auto take = [&](int64_t run, const float* drawn) {
    const int64_t at = run * options_.steps + filled_;
    float* target = targets_.data() + at * (action_size_ + 2);
    const bool sound =
        alive_[static_cast<std::size_t>(run)] && std::all_of(drawn, drawn + action_size_ + 1, [](float x) { return std::isfinite(x); });
    for (int64_t i = 0; i <= action_size_; ++i) target[i] = sound ? drawn[i] : 0;
    std::copy_n(target, action_size_, actions.data() + run * action_size_);
    std::copy_n(seen.data() + run * inputs_, inputs_, observations_.data() + at * inputs_);
  };
  if (net.together()) {
    Play play = net.play(work_);
    play.batch = net.batch(net.stage(samples), 0, 0, 1);
    play_program(net.backend(), tape_.forward, play);
    net.backend().draw_action(draw_, play);
    const std::size_t size = static_cast<std::size_t>(action_size_ + 1);
    const std::vector<float> drawn = work_.fetch(draw_.action, size);
    for (int64_t run = 0; run < runs_; ++run) take(run, drawn.data() + static_cast<std::size_t>(run) * size);
  } else {
    parallel_for(runs_, work_.count(), [&](int64_t run, int thread) {
      Play play;
      play.base[space_network] = net.blocks().block(static_cast<int>(run));
      play.base[space_work] = work_.block(thread);
      play.batch = net.batch(samples, static_cast<int>(run), 0, 1);
      play_program(net.backend(), tape_.forward, play);
      net.backend().draw_action(draw_, play);
      take(run, play.at(draw_.action));
    });
  }
  acted_ = true;
  return actions;
}

void Ppo::observe(const double* rewards, const uint8_t* terminated, const uint8_t* truncated, const double* final_observations) {
  expect(acted_, "observe() needs an act() before it");
  const bool cut = options_.truncation == "terminal";
  for (int64_t run = 0; run < runs_; ++run) {
    const int64_t at = run * options_.steps + filled_;
    const std::size_t place = static_cast<std::size_t>(at);
    rewards_[place] = reward_scale_.present() ? reward_scale_(static_cast<int>(run), rewards[run], terminated[run] || truncated[run],
                                                              options_.discount[static_cast<int>(run)])
                                              : rewards[run];
    terminated_[place] = terminated[run] || (cut && truncated[run]);
    truncated_[place] = truncated[run];
    see(run, final_observations + run * inputs_, final_observations_.data() + at * inputs_, false);
  }
  ++filled_;
  ++step_;
  acted_ = false;
}

void Ppo::cut() {
  acted_ = false;
  if (filled_ == 0) return;
  for (int64_t run = 0; run < runs_; ++run) {
    const std::size_t last = static_cast<std::size_t>(run * options_.steps + filled_ - 1);
    truncated_[last] = 1;
    if (options_.truncation == "terminal") terminated_[last] = 1;
  }
}

PpoUpdate Ppo::learn(const std::function<void()>& between) {
  const int64_t steps = options_.steps;
  expect(full(), "learn() needs a full buffer of " + std::to_string(steps) + " steps, got " + std::to_string(filled_));
  Samples samples;
  samples.count = steps;
  samples.per_run = samples.targets_per_run = true;
  samples.x = final_observations_.data();
  const std::vector<float> final_values = value().infer(samples);
  samples.x = observations_.data();
  const std::vector<float> values = value().infer(samples);
  std::vector<float> returns(values.size());
  parallel_for(runs_, get_threads(), [&](int64_t run, int) {
    const int64_t first = run * steps;
    std::vector<double> found(static_cast<std::size_t>(steps));
    advantages(rewards_.data() + first, values.data() + first, final_values.data() + first, terminated_.data() + first,
               truncated_.data() + first, steps, options_.discount[static_cast<int>(run)], options_.trace_decay[static_cast<int>(run)],
               found.data());
    for (int64_t t = 0; t < steps; ++t)
      returns[static_cast<std::size_t>(first + t)] =
          static_cast<float>(found[static_cast<std::size_t>(t)] + static_cast<double>(values[static_cast<std::size_t>(first + t)]));
    standardise(found.data(), steps);
    for (int64_t t = 0; t < steps; ++t)
      targets_[static_cast<std::size_t>((first + t + 1) * (action_size_ + 2) - 1)] = static_cast<float>(found[static_cast<std::size_t>(t)]);
  });

  const RunOptions run{options_.batch_size, options_.epochs, true, between};
  samples.targets = targets_.data();
  samples.target_size = action_size_ + 2;
  History of_policy = policy_.run(samples, run);
  samples.targets = returns.data();
  samples.target_size = 1;
  History of_value = value_.run(samples, run);
  filled_ = 0;
  look_who_is_alive();
  return {std::move(of_policy.loss), std::move(of_value.loss), std::move(of_policy.accuracy)};
}

std::vector<float> Ppo::recent(int64_t count) const {
  expect(count >= 1, "recent: count must be at least 1, got " + std::to_string(count));
  const int64_t newest = filled_ + acted_;  // the place behind it
  count = std::min({count, step_ + acted_, options_.steps});
  std::vector<float> found(static_cast<std::size_t>(runs_ * count * inputs_));
  for (int64_t run = 0; run < runs_; ++run)
    for (int64_t i = 0; i < count; ++i) {
      const int64_t at = run * options_.steps + (newest + options_.steps - count + i) % options_.steps;
      std::copy_n(observations_.data() + at * inputs_, inputs_, found.data() + (run * count + i) * inputs_);
    }
  return found;
}

void Ppo::look_who_is_alive() {
  alive_ = policy_.alive();
  const std::vector<uint8_t> value = value_.alive();
  for (std::size_t r = 0; r < alive_.size(); ++r) alive_[r] = alive_[r] && value[r];
}

std::vector<Ppo::Part> Ppo::parts() const {
  const auto part = [](const char* name, Type type, int64_t size, const auto& values) {
    return Part{name, type, size, const_cast<void*>(static_cast<const void*>(values.data()))};
  };
  return {part("observations", Type::float32, inputs_, observations_),
          part("final_observations", Type::float32, inputs_, final_observations_),
          part("targets", Type::float32, action_size_ + 2, targets_),
          part("rewards", Type::float64, 1, rewards_),
          part("terminated", Type::uint8, 1, terminated_),
          part("truncated", Type::uint8, 1, truncated_)};
}

namespace {

constexpr const char* owners[] = {"policy.", "value."};
constexpr const char *filled_name = "buffer.filled", *acted_name = "buffer.acted", *step_name = "step";
constexpr const char *moments_name = "observation_moments.", *scale_name = "reward_scale.";

Array number(const std::string& name, int64_t value) {
  Array array{name, Type::int64, {1}, std::vector<char>(sizeof value)};
  std::memcpy(array.data.data(), &value, sizeof value);
  return array;
}

}  // namespace

std::vector<Array> Ppo::state() const {
  std::vector<Array> all;
  const Learner* learners[] = {&policy_, &value_};
  for (int k = 0; k < 2; ++k)
    for (Array& array : learners[k]->state()) {
      array.name = owners[k] + array.name;
      all.push_back(std::move(array));
    }
  all.push_back(number(filled_name, filled_));
  all.push_back(number(acted_name, acted_));
  all.push_back(number(step_name, step_));
  for (const Part& part : parts()) {
    Array array{"buffer." + std::string(part.name), part.type, {runs_, options_.steps, part.size}, {}};
    const std::size_t bytes = static_cast<std::size_t>(runs_ * options_.steps * part.size) * size_of(part.type);
    array.data.assign(static_cast<const char*>(part.data), static_cast<const char*>(part.data) + bytes);
    all.push_back(std::move(array));
  }
  for (Array& array : observation_moments_.state(moments_name)) all.push_back(std::move(array));
  for (Array& array : reward_scale_.state(scale_name)) all.push_back(std::move(array));
  return all;
}

void Ppo::load_state(const std::vector<Array>& arrays) {
  std::vector<Array> of_learner[2];
  std::vector<const Array*> own;
  for (const Array& array : arrays) {
    const auto owner = std::find_if(std::begin(owners), std::end(owners), [&](const char* name) { return array.name.starts_with(name); });
    if (owner == std::end(owners)) {
      own.push_back(&array);
      continue;
    }
    std::vector<Array>& theirs = of_learner[owner - owners];
    theirs.push_back(array);
    theirs.back().name = array.name.substr(std::strlen(*owner));
  }
  // All or nothing.
  Learner* learners[] = {&policy_, &value_};
  for (int k = 0; k < 2; ++k) {
    try {
      learners[k]->check_state(of_learner[k]);
    } catch (const Error& error) {
      throw Error("[ppo] " + std::string(owners[k]) + "*: " + error.what());
    }
  }
  std::map<std::string, const Array*> known;
  const std::vector<Array> mine = state();
  for (const Array& array : mine)
    if (!array.name.starts_with(owners[0]) && !array.name.starts_with(owners[1])) known[array.name] = &array;
  expect(own.size() == known.size(),
         "load_state: expected " + std::to_string(known.size()) + " arrays beside the networks', got " + std::to_string(own.size()));
  std::map<std::string, int64_t> numbers;
  for (const Array* array : own) {
    const auto found = known.find(array->name);
    expect(found != known.end(), "load_state: does not know \"" + array->name + "\"");
    const Array& like = *found->second;
    expect(array->type == like.type && array->shape == like.shape && array->data.size() == like.data.size(),
           "load_state: \"" + array->name + "\" does not fit");
    if (array->type == Type::int64) std::memcpy(&numbers[array->name], array->data.data(), sizeof(int64_t));
  }
  const int64_t filled = numbers[filled_name], acted = numbers[acted_name], step = numbers[step_name];
  expect(filled >= 0 && filled <= options_.steps && step >= filled && (acted == 0 || (acted == 1 && filled < options_.steps)),
         "load_state: no buffer has " + std::to_string(filled) + " of " + std::to_string(step) + " steps");

  for (int k = 0; k < 2; ++k) learners[k]->load_state(of_learner[k]);
  filled_ = filled, acted_ = acted != 0, step_ = step;
  for (const Array* array : own) {
    observation_moments_.load(moments_name, *array);
    reward_scale_.load(scale_name, *array);
    for (const Part& part : parts())
      if (array->name == "buffer." + std::string(part.name)) std::memcpy(part.data, array->data.data(), array->data.size());
  }
  look_who_is_alive();
}

}  // namespace klopf
