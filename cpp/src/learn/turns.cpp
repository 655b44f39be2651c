// Steps in which optimizers or rules of the caller's own have turns: all runs wait for each other at every one of them. Workspaces belong
// to runs, so that what a step knows is still there.
#include <algorithm>
#include <cstring>
#include <limits>

#include "klopf/error.hpp"
#include "klopf/learner.hpp"
#include "klopf/threads.hpp"
#include "learn/check.hpp"

namespace klopf {

// What follows the backward pass, with a turn at every pause.
void Learner::update_with_turns(const PlayOf& batch) {
  Backend& backend = network_->backend();
  const bool together = network_->together();
  const std::vector<uint8_t> learns = alive();
  const auto play_part = [&](std::size_t from, std::size_t to) {
    const auto part = [&](const Play& play) {
      for (std::size_t i = from; i < to; ++i) std::visit([&](const auto& op) { call(backend, op, play); }, update_[i]);
    };
    if (together) return part(batch(0));
    parallel_for(network_->runs(), get_threads(), [&](int64_t item, int) {
      const int run = static_cast<int>(item);
      if (learns[static_cast<std::size_t>(run)]) part(batch(run));
    });
  };
  if (!turn_) throw Error("[learner] rules of one's own need on_pause()");
  std::size_t from = 0;
  for (std::size_t k = 0; k < pauses_.size(); ++k) {
    play_part(from, pauses_[k]);
    from = pauses_[k];
    in_turn_ = true;
    try {
      turn_(k);
    } catch (...) {
      in_turn_ = false;
      throw;
    }
    in_turn_ = false;
  }
  play_part(from, update_.size());
}

// One step of all runs.
void Learner::learn_with_turns(const PlayOf& batch, int64_t count) {
  Backend& backend = network_->backend();
  forward_count_ = count;
  stage_ = Stage::none;
  if (network_->together()) {
    const Play play = batch(0);
    for (const Program* program :
         {&training_.tape.forward, &training_.observe, &training_.judge, &training_.tape.backward, &training_.curve})
      play_program(backend, *program, play);
    backend.loss_total({training_.loss, training_.correct, alive_, training_.active}, play);
  } else {
    const int chunks = network_->chunks(count).count;
    parallel_for(network_->runs() * chunks, get_threads(), [&](int64_t item, int) {
      const int run = static_cast<int>(item / chunks);
      if (*blocks_.at(alive_, run)) forward_backward(batch(run), static_cast<int>(item % chunks));
    });
    for (int run = 0; run < network_->runs(); ++run)
      if (*blocks_.at(alive_, run)) backend.loss_total({training_.loss, training_.correct, alive_, {}}, batch(run));
  }
  update_with_turns(batch);
}

StepResult Learner::step_with_turns(const Samples& samples) {
  prepare(run_work_, samples.count, network_->runs());
  const std::vector<uint8_t> before = alive();
  const Samples staged = network_->stage(samples);
  learn_with_turns(
      [&](int run) {
        if (!network_->together()) return play(run, run_work_, run, samples, 0, samples.count);
        Play play = play_together(run_work_, training_);
        play.batch = network_->batch(staged, 0, 0, samples.count);
        return play;
      },
      samples.count);
  StepResult result;
  // Of a run in the first of its workspaces.
  const int each = network_->together() ? 1 : most_chunks_;
  const std::vector<double> losses = run_work_.fetch(training_.loss);
  const std::vector<int32_t> correct = run_work_.fetch(training_.correct);
  for (int run = 0; run < network_->runs(); ++run) {
    const std::size_t at = static_cast<std::size_t>(run * each);
    const bool learned = before[static_cast<std::size_t>(run)];
    const double nan = std::numeric_limits<double>::quiet_NaN();
    result.loss.push_back(learned ? losses[at] : nan);
    result.accuracy.push_back(learned && counts_ ? static_cast<double>(correct[at]) / static_cast<double>(samples.count) : nan);
  }
  result.replaced = std::move(replaced().get());
  return result;
}

History Learner::run_with_turns(const Samples& samples, const RunOptions& options) {
  if (!options.allow_host_rules)
    throw Error("[learner.run] rules in Python have a turn at every step, for which all runs wait: allow_host_rules=True if that is meant");
  const int64_t batch_size = std::min(options.batch_size, samples.count);
  const int runs = network_->runs();
  const bool together = network_->together();
  prepare(run_work_, batch_size, runs);
  Epoch epoch = prepare_epochs(training_, samples.count, options.shuffle, 1, runs);
  Backend& backend = network_->backend();
  const Samples staged = network_->stage(samples);
  History history;
  const auto batch = [&](int run, int64_t first, int64_t count) {
    Play now;
    if (together) {
      now = play_together(run_work_, training_);
      now.batch = network_->batch(staged, 0, first, count);
    } else {
      now = play(run, run_work_, run, samples, first, count);
      now.base[space_epoch] = epoch_work_.block(run);
    }
    if (options.shuffle) {
      now.batch.order = now.at(epoch.begin.order);
      if (together) now.batch.order_run = static_cast<int64_t>(now.stride[space_epoch] / sizeof(uint32_t));
    }
    return now;
  };
  const auto each_run = [&](auto work) {
    for (int run = 0; run < (together ? 1 : runs); ++run) work(run);
  };
  std::vector<std::vector<double>> losses, accuracies;
  for (int64_t i = 0; i < options.epochs; ++i) {
    each_run([&](int run) { backend.begin_epoch(epoch.begin, batch(run, 0, batch_size)); });
    for (int64_t first = 0; first < samples.count; first += batch_size) {
      const int64_t count = std::min(batch_size, samples.count - first);
      const std::vector<uint8_t> before = alive();
      learn_with_turns([&](int run) { return batch(run, first, count); }, count);
      each_run([&](int run) {
        if (together || before[static_cast<std::size_t>(run)]) backend.tally(training_.tally, batch(run, first, count));
      });
      if (options.between) options.between();
    }
    each_run([&](int run) { backend.end_epoch(epoch.end, batch(run, 0, batch_size)); });
    losses.push_back(epoch_work_.fetch(epoch.end.loss));
    accuracies.push_back(epoch_work_.fetch(epoch.end.accuracy));
  }
  for (std::size_t run = 0; run < static_cast<std::size_t>(runs); ++run)
    for (std::size_t i = 0; i < losses.size(); ++i) {
      history.loss.push_back(losses[i][run]);
      history.accuracy.push_back(accuracies[i][run]);
    }
  return history;
}

// What a tape holds of the samples of a step: [R, B, U, positions].
std::vector<float> Learner::of_samples(Ref<float> values, std::size_t group) const {
  expect_turn("activities and errors");
  const Units& g = network_->units().at(group);
  const int64_t each = static_cast<int64_t>(g.units) * g.positions, count = forward_count_;
  std::vector<float> out(static_cast<std::size_t>(network_->runs() * count * each));
  const Chunks chunks = network_->together() ? Chunks{1, static_cast<int>(count)} : network_->chunks(count);
  const int blocks = network_->together() ? 1 : most_chunks_;
  const std::vector<float> all = run_work_.fetch(values, static_cast<std::size_t>(chunks.size * each));
  for (int64_t run = 0; run < network_->runs(); ++run)
    for (int64_t b = 0; b < count; ++b) {
      const float* from = all.data() + ((run * blocks + b / chunks.size) * chunks.size + b % chunks.size) * each;
      float* to = out.data() + (run * count + b) * each;
      for (int s = 0; s < g.positions; ++s)
        for (int u = 0; u < g.units; ++u) to[static_cast<int64_t>(u) * g.positions + s] = *from++;
    }
  return out;
}

std::vector<Array> Learner::gradients_now() const {
  expect_turn("gradients");
  Layout layout(space_learner);
  const Ref<float> sum = layout.add<float>("weights", {network_->weights_count()});
  layout.slot("weights").like_weights = true;
  const Blocks sums(network_->runs(), layout.bytes());
  const std::size_t count = static_cast<std::size_t>(network_->weights_count());
  const std::vector<float> all = run_work_.fetch(training_.tape.grads, count);
  const int each = network_->together() ? 1 : most_chunks_;
  for (int run = 0; run < network_->runs(); ++run)
    std::memcpy(sums.at(sum, run), all.data() + static_cast<std::size_t>(run * each) * count, count * sizeof(float));
  return read_slots(layout, sums, network_->parameters());
}

void Learner::replace_now(std::size_t group, const std::vector<uint8_t>& units) {
  expect_turn("masks");
  if (group >= replaced_.size()) throw Error("[learner] a rule that replaces no units cannot say which are to be replaced");
  if (units.size() != static_cast<std::size_t>(network_->runs() * network_->units()[group].units))
    throw Error("[learner] a mask of group " + std::to_string(group) + " must have " +
                std::to_string(network_->runs() * network_->units()[group].units) + " numbers, got " + std::to_string(units.size()));
  blocks_.put(replaced_[group], units);
}

void Learner::expect_turn(const char* name) const {
  if (!in_turn_) throw Error("[learner] " + std::string(name) + " of a step are there while a rule of one's own has its turn");
}

}  // namespace klopf
