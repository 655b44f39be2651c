// For devices that play all runs at once: the host only says what comes next, and runs that no longer learn are left out by a mask.
#include <algorithm>
#include <chrono>
#include <cstring>
#include <limits>

#include "klopf/learner.hpp"

namespace klopf {
namespace {

constexpr double nan_value = std::numeric_limits<double>::quiet_NaN();
constexpr int64_t evaluation_chunk = 64;
constexpr std::size_t most_recorded = 16;  // steps: they differ by batch size, and by who calls

}  // namespace

Play Learner::play_together(const Blocks& work, const Pass& pass) const {
  Play play = network_->play(work);
  play.base[space_learner] = blocks_.to_play();
  play.stride[space_learner] = blocks_.stride();
  if (epoch_work_.count() > 0) {
    play.base[space_epoch] = epoch_work_.to_play();
    play.stride[space_epoch] = epoch_work_.stride();
  }
  play.active = pass.active;
  return play;
}

// One step of all runs that are alive; counted, within an epoch.
void Learner::play_step(const Play& play) {
  Backend& backend = network_->backend();
  const bool online = play.batch.total == 1 && !online_backward_.empty();
  for (const Program* program : {&training_.tape.forward, &training_.observe, &training_.judge}) play_program(backend, *program, play);
  if (!online)
    for (const Program* program : {&training_.tape.backward, &training_.curve}) play_program(backend, *program, play);
  backend.loss_total({training_.loss, training_.correct, alive_, training_.active}, play);
  if (online) play_program(backend, online_backward_, play);
  play_program(backend, online ? online_update_ : update_, play);
  if (play.batch.done.present()) backend.tally(training_.tally, play);
}

void Learner::learn_together(const Play& play) {
  const auto known = std::find_if(recorded_.begin(), recorded_.end(), [&](const Recorded& r) { return r.play == play; });
  if (known == recorded_.end()) {
    if (recorded_.size() == most_recorded) recorded_.erase(recorded_.begin());
    recorded_.push_back({play, nullptr});
    return play_step(play);
  }
  if (!known->graph) known->graph = network_->backend().record([&] { play_step(play); });
  known->graph ? known->graph->play() : play_step(play);
}

Later<StepResult> Learner::step_together(const Samples& samples) {
  prepare(thread_work_, samples.count, network_->runs());
  Play play = play_together(thread_work_, training_);
  play.batch = network_->batch(network_->stage(samples), 0, 0, samples.count);
  learn_together(play);
  // Loss and count of the correct lie side by side: one copy.
  const uint64_t width = training_.correct.offset + sizeof(int32_t) - training_.loss.offset;
  auto bytes = thread_work_.region_later(training_.loss.offset, training_.loss.offset + width);
  return Later<StepResult>(
      [width, bytes, classifies = counts_, total = static_cast<double>(samples.count), replaced = replaced()]() mutable {
        StepResult result;
        for (const char* run = bytes.get().data(); run < bytes.get().data() + bytes.get().size(); run += width) {
          double loss;
          int32_t correct;
          std::memcpy(&loss, run, sizeof loss);
          std::memcpy(&correct, run + width - sizeof correct, sizeof correct);
          result.loss.push_back(loss);
          result.accuracy.push_back(classifies && correct >= 0 ? correct / total : nan_value);
        }
        result.replaced = replaced.get();
        return result;
      });
}

Later<History> Learner::run_together(const Samples& samples, const RunOptions& options) {
  const int runs = network_->runs();
  const int64_t batch_size = std::min(options.batch_size, samples.count), epochs = options.epochs;
  prepare(thread_work_, batch_size, runs);
  Epoch epoch = prepare_epochs(training_, samples.count, options.shuffle, epochs, runs);
  Backend& backend = network_->backend();
  const Samples staged = network_->stage(samples);
  const auto batch = [&](int64_t count) {
    Play play = play_together(thread_work_, training_);
    play.batch = network_->batch(staged, 0, 0, count);
    play.batch.done = training_.sums.done;
    if (options.shuffle) {
      play.batch.order = play.at(epoch.begin.order);
      play.batch.order_run = static_cast<int64_t>(play.stride[space_epoch] / sizeof(uint32_t));
    }
    return play;
  };
  auto told = std::chrono::steady_clock::now();
  for (epoch.end.index = 0; epoch.end.index < epochs; ++epoch.end.index) {
    const Play play = batch(batch_size);  // anew each epoch: `between` may have brought state to the host
    backend.begin_epoch(epoch.begin, play);
    for (int64_t first = 0; first < samples.count; first += batch_size)
      learn_together(first + batch_size <= samples.count ? play : batch(samples.count - first));
    backend.end_epoch(epoch.end, play);
    if (options.between && (epoch.end.index + 1 == epochs || std::chrono::steady_clock::now() - told > std::chrono::milliseconds(400))) {
      options.between();
      told = std::chrono::steady_clock::now();
    }
  }
  const std::size_t each = static_cast<std::size_t>(epochs);
  return Later<History>(
      [loss = epoch_work_.fetch_later(epoch.end.loss, each), accuracy = epoch_work_.fetch_later(epoch.end.accuracy, each)]() mutable {
        return History{loss.get(), accuracy.get()};
      });
}

Later<Evaluation> Learner::evaluate_together(const Samples& samples) {
  const int runs = network_->runs();
  Epoch epoch = prepare_epochs(evaluation_, samples.count, false, 1, runs);
  epoch.end.epoch = {};
  if (evaluation_work_.count() == 0) evaluation_work_ = Blocks(runs, evaluation_.work_bytes, network_->backend().memory(), false);
  Backend& backend = network_->backend();
  const Samples staged = network_->stage(samples);
  Play play = play_together(evaluation_work_, evaluation_);
  backend.begin_epoch(epoch.begin, play);
  for (int64_t first = 0; first < samples.count; first += evaluation_chunk) {
    play.batch = network_->batch(staged, 0, first, std::min(evaluation_chunk, samples.count - first));
    play_program(backend, evaluation_.tape.forward, play);
    play_program(backend, evaluation_.judge, play);
    backend.tally(evaluation_.tally, play);
  }
  backend.end_epoch(epoch.end, play);
  return Later<Evaluation>(
      [loss = epoch_work_.fetch_later(epoch.end.loss), accuracy = epoch_work_.fetch_later(epoch.end.accuracy)]() mutable {
        return Evaluation{loss.get(), accuracy.get()};
      });
}

void Learner::forward_together(const Samples& samples) {
  Play play = play_together(run_work_, training_);
  play.batch = network_->batch(network_->stage(samples), 0, 0, samples.count);
  play_program(network_->backend(), training_.tape.forward, play);
  play_program(network_->backend(), training_.observe, play);
}

}  // namespace klopf
