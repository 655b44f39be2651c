// For devices that play all runs at once: the host only says what comes next, and runs that no longer learn are left out by a mask.
#include <algorithm>
#include <chrono>
#include <limits>

#include "klopf/learner.hpp"
#include "klopf/threads.hpp"
#include "learn/shuffle.hpp"

namespace klopf {
namespace {

constexpr double nan_value = std::numeric_limits<double>::quiet_NaN();
constexpr int64_t evaluation_chunk = 64;

std::size_t size(int64_t n) { return static_cast<std::size_t>(n); }

}  // namespace

Play Learner::play_together(const Blocks& work, const Pass& pass) const {
  Play play = network_->play(work);
  play.base[space_learner] = blocks_.to_play();
  play.stride[space_learner] = blocks_.stride();
  play.active = pass.active;
  return play;
}

// One step of all runs that are alive.
void Learner::learn_together(const Play& play) {
  Backend& backend = network_->backend();
  const bool online = play.batch.total == 1 && !online_backward_.empty();
  for (const Program* program : {&training_.tape.forward, &training_.observe, &training_.judge}) play_program(backend, *program, play);
  if (!online) play_program(backend, training_.tape.backward, play);
  backend.loss_total({training_.loss, training_.correct, alive_, training_.active}, play);
  if (online) play_program(backend, online_backward_, play);
  play_program(backend, online ? online_update_ : update_, play);
}

StepResult Learner::step_together(const Samples& samples) {
  prepare(thread_work_, samples.count, network_->runs());
  Play play = play_together(thread_work_, training_);
  play.batch = network_->batch(network_->stage(samples), 0, 0, samples.count);
  learn_together(play);
  StepResult result;
  result.loss = thread_work_.fetch(training_.loss);  // NaN of runs that did not take part
  for (const int32_t correct : thread_work_.fetch(training_.correct))
    result.accuracy.push_back(classification() ? static_cast<double>(correct) / static_cast<double>(samples.count) : nan_value);
  for (std::size_t r = 0; r < result.loss.size(); ++r)
    if (result.loss[r] != result.loss[r]) result.accuracy[r] = nan_value;
  result.replaced = replaced();
  return result;
}

History Learner::run_together(const Samples& samples, const RunOptions& options) {
  const int runs = network_->runs();
  const int64_t batch_size = std::min(options.batch_size, samples.count), epochs = options.epochs;
  prepare(thread_work_, batch_size, runs);
  const Samples staged = network_->stage(samples);
  Play play = play_together(thread_work_, training_);
  History history;
  history.loss.assign(size(runs * epochs), nan_value);
  history.accuracy = history.loss;

  const std::vector<uint64_t> seeds = network_->blocks().fetch(network_->seed());
  std::vector<int64_t> epoch = blocks_.fetch(epoch_);
  const Blocks order(1, options.shuffle ? static_cast<uint64_t>(runs * samples.count) * sizeof(uint32_t) : 64, network_->backend().memory(),
                     false);
  std::vector<uint32_t> next(options.shuffle ? size(runs * samples.count) : 0);
  const auto draw = [&](int64_t later) {  // of the epoch that comes `later` after the one to begin
    if (options.shuffle)
      parallel_for(runs, get_threads(), [&](int64_t run, int) {
        Shuffle shuffle(samples.count);
        shuffle.draw(seeds[size(run)], 0, epoch[size(run)] + later);
        std::copy(shuffle.order.begin(), shuffle.order.end(), next.begin() + run * samples.count);
      });
  };

  draw(0);
  auto told = std::chrono::steady_clock::now();
  for (int64_t i = 0; i < epochs; ++i) {
    thread_work_.put(training_.tally.loss_sum, std::vector<double>(size(runs)));
    thread_work_.put(training_.tally.correct_sum, std::vector<int64_t>(size(runs)));
    if (options.shuffle) order.put(Ref<uint32_t>{space_work, 0}, next);
    for (int64_t first = 0; first < samples.count; first += batch_size) {
      play.batch = network_->batch(staged, 0, first, std::min(batch_size, samples.count - first));
      if (options.shuffle) {
        play.batch.order = reinterpret_cast<const uint32_t*>(order.to_play());
        play.batch.order_run = samples.count;
      }
      learn_together(play);
      network_->backend().tally(training_.tally, play);
    }
    if (i + 1 < epochs) draw(1);  // while the device is busy
    const std::vector<double> loss = thread_work_.fetch(training_.tally.loss_sum);
    const std::vector<int64_t> correct = thread_work_.fetch(training_.tally.correct_sum);
    const std::vector<uint8_t> learns = alive();
    for (int run = 0; run < runs; ++run) {
      ++epoch[size(run)];
      if (!learns[size(run)]) continue;
      history.loss[size(run * epochs + i)] = loss[size(run)] / static_cast<double>(samples.count);
      if (classification())
        history.accuracy[size(run * epochs + i)] = static_cast<double>(correct[size(run)]) / static_cast<double>(samples.count);
    }
    blocks_.put(epoch_, epoch);
    if (options.between && (i + 1 == epochs || std::chrono::steady_clock::now() - told > std::chrono::milliseconds(400))) {
      told = std::chrono::steady_clock::now();
      options.between();
    }
  }
  return history;
}

Evaluation Learner::evaluate_together(const Samples& samples) {
  const int runs = network_->runs();
  const Blocks work(runs, evaluation_.work_bytes, network_->backend().memory(), false);
  const Samples staged = network_->stage(samples);
  Play play = play_together(work, evaluation_);
  for (int64_t first = 0; first < samples.count; first += evaluation_chunk) {
    play.batch = network_->batch(staged, 0, first, std::min(evaluation_chunk, samples.count - first));
    play_program(network_->backend(), evaluation_.tape.forward, play);
    play_program(network_->backend(), evaluation_.judge, play);
    network_->backend().tally(evaluation_.tally, play);
  }
  const std::vector<double> loss = work.fetch(evaluation_.tally.loss_sum);
  const std::vector<int64_t> correct = work.fetch(evaluation_.tally.correct_sum);
  const std::vector<uint8_t> learns = alive();
  Evaluation result;
  for (std::size_t r = 0; r < size(runs); ++r) {
    result.loss.push_back(learns[r] ? loss[r] / static_cast<double>(samples.count) : nan_value);
    result.accuracy.push_back(learns[r] && classification() ? static_cast<double>(correct[r]) / static_cast<double>(samples.count)
                                                            : nan_value);
  }
  return result;
}

std::vector<float> Learner::forward_together(const Samples& samples) {
  Play play = play_together(run_work_, training_);
  play.batch = network_->batch(network_->stage(samples), 0, 0, samples.count);
  play_program(network_->backend(), training_.tape.forward, play);
  play_program(network_->backend(), training_.observe, play);
  return run_work_.fetch(training_.tape.output, size(samples.count * network_->outputs()));
}

}  // namespace klopf
