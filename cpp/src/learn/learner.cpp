#include "klopf/learner.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <utility>

#include "klopf/error.hpp"
#include "klopf/philox.hpp"
#include "klopf/threads.hpp"
#include "learn/check.hpp"
#include "learn/record.hpp"

namespace klopf {
namespace {

constexpr double nan_value = std::numeric_limits<double>::quiet_NaN();
constexpr int evaluation_chunk = 64;

// The order of an epoch's samples: a stable argsort of 32-bit keys.
void shuffled(uint64_t seed, uint32_t stream, int64_t epoch, std::vector<uint64_t>& keys, std::vector<uint32_t>& order) {
  for (std::size_t i = 0; i < keys.size(); i += 4) {
    const Random4 r = random4(seed, Stream::shuffle, stream, static_cast<uint64_t>(epoch), static_cast<uint32_t>(i / 4));
    for (std::size_t k = 0; k < 4 && i + k < keys.size(); ++k) keys[i + k] = (static_cast<uint64_t>(r.v[k]) << 32) | (i + k);
  }
  std::sort(keys.begin(), keys.end());
  for (std::size_t i = 0; i < keys.size(); ++i) order[i] = static_cast<uint32_t>(keys[i]);
}

}  // namespace

std::vector<int64_t> permutation(uint64_t seed, uint32_t stream, int64_t step, int64_t n) {
  if (stream >= 1u << 24) throw Error("[permutation] stream must be below 16777216, got " + std::to_string(stream));
  if (n < 0) throw Error("[permutation] n must not be negative, got " + std::to_string(n));
  std::vector<uint64_t> keys(static_cast<std::size_t>(n));
  std::vector<uint32_t> order(keys.size());
  shuffled(seed, stream, step, keys, order);
  return {order.begin(), order.end()};
}

Learner::Learner(std::shared_ptr<Network> network, std::string loss, Optimizer optimizer, std::vector<Rule> rules)
    : network_(std::move(network)),
      loss_(static_cast<LossKind>(choice("learner", "loss", loss, loss_names()))),
      optimizer_(std::move(optimizer)),
      rules_(std::move(rules)) {
  if (!network_) throw Error("[learner] network must be given, got none");
  step_ = layout_.add<int64_t>("step");
  epoch_ = layout_.add<int64_t>("epoch");
  alive_ = layout_.add<int32_t>("alive");
  const auto hyper = record(1);
  blocks_ = Blocks(network_->runs(), layout_.bytes());
  for (int r = 0; r < network_->runs(); ++r) {
    *blocks_.at(alive_, r) = 1;
    for (const auto& [ref, value] : hyper) *blocks_.at(ref, r) = value[r];
  }
  WorkLayout work;
  evaluation_.tape = network_->record(work, evaluation_chunk, false);
  record_loss(evaluation_, work, {});
}

void Learner::record_loss(Pass& pass, WorkLayout& work, Ref<int32_t> alive) {
  pass.loss = work.take<double>(1);
  pass.correct = work.take<int32_t>(1);
  const int32_t outputs = static_cast<int32_t>(network_->outputs());
  pass.judge = {Loss{loss_, outputs, pass.tape.output, pass.tape.grad_output, pass.loss, pass.correct, alive}};
  pass.work_bytes = work.bytes();
}

std::vector<std::pair<Ref<double>, PerRun>> Learner::record(int capacity) {
  WorkLayout work;
  update_.clear();
  training_.tape = network_->record(work, capacity, true);
  Recording recording{*network_, layout_, work, training_.tape, update_, step_, alive_, {}, {}, {}, {}};
  klopf::record(optimizer_, recording);
  for (const Rule& rule : rules_) klopf::record(rule, recording);
  update_.push_back(Advance{step_});
  replaced_ = recording.replaced;
  record_loss(training_, work, alive_);
  thread_work_ = {};
  run_work_ = {};
  stage_ = Stage::none;
  return recording.hyper;
}

// Workspaces for a batch of so many samples: one a thread, or one a run where they must last between calls.
void Learner::prepare(int64_t count, bool of_runs) {
  if (count > training_.tape.capacity) record(static_cast<int>(count));
  Blocks& work = of_runs ? run_work_ : thread_work_;
  const int wanted = of_runs ? network_->runs() : std::min(get_threads(), network_->runs());
  if (work.count() < wanted) work = Blocks(wanted, training_.work_bytes);
}

Play Learner::play(int run, char* workspace) const {
  Play play;
  play.base[space_network] = network_->blocks().block(run);
  play.base[space_learner] = blocks_.block(run);
  play.base[space_work] = workspace;
  return play;
}

// One step of one run that is alive: its loss and how many samples it classified correctly.
std::pair<double, int> Learner::learn(const Play& play) {
  Backend& backend = network_->backend();
  play_program(backend, training_.tape.forward, play);
  play_program(backend, training_.judge, play);
  if (*play.at(alive_)) {
    play_program(backend, training_.tape.backward, play);
    play_program(backend, update_, play);
  }
  return {*play.at(training_.loss), *play.at(training_.correct)};
}

StepResult Learner::step(const Samples& samples) {
  check("learner.step", *network_, loss_, samples);
  prepare(samples.count, false);
  StepResult result;
  const std::size_t runs = static_cast<std::size_t>(network_->runs());
  result.loss.assign(runs, nan_value);
  result.accuracy.assign(runs, nan_value);
  parallel_for(network_->runs(), [&](int run, int thread) {
    Play now = play(run, thread_work_.block(thread));
    if (!*now.at(alive_)) return;
    now.batch = network_->batch(samples, run, 0, samples.count);
    const auto [loss, correct] = learn(now);
    result.loss[static_cast<std::size_t>(run)] = loss;
    if (classification())
      result.accuracy[static_cast<std::size_t>(run)] = static_cast<double>(correct) / static_cast<double>(samples.count);
  });
  result.replaced = replaced();
  return result;
}

History Learner::run(const Samples& samples, const RunOptions& options) {
  check(options), check("learner.run", *network_, loss_, samples);
  const int64_t batch_size = std::min(options.batch_size, samples.count), epochs = options.epochs;
  prepare(batch_size, false);
  const int runs = network_->runs(), threads = thread_work_.count();
  const std::size_t count = static_cast<std::size_t>(samples.count);
  std::vector<std::vector<uint64_t>> keys(static_cast<std::size_t>(threads), std::vector<uint64_t>(count));
  std::vector<std::vector<uint32_t>> orders(static_cast<std::size_t>(threads), std::vector<uint32_t>(count));
  History history;
  history.loss.assign(static_cast<std::size_t>(runs * epochs), nan_value);
  history.accuracy = history.loss;

  const auto epoch = [&](int run, Play& now, std::size_t thread, int64_t index) {
    if (!*now.at(alive_)) return;
    const int64_t number = *now.at(epoch_);
    if (options.shuffle) shuffled(*network_->blocks().at(network_->seed(), run), 0, number, keys[thread], orders[thread]);
    double loss = 0;
    int64_t correct = 0;
    for (int64_t first = 0; first < samples.count && *now.at(alive_); first += batch_size) {
      now.batch = network_->batch(samples, run, first, std::min(batch_size, samples.count - first));
      now.batch.order = options.shuffle ? orders[thread].data() : nullptr;
      const auto [batch_loss, batch_correct] = learn(now);
      loss += batch_loss * now.batch.count;
      correct += batch_correct;
    }
    if (!*now.at(alive_)) return;
    const std::size_t at = static_cast<std::size_t>(run * epochs + index);
    history.loss[at] = loss / static_cast<double>(samples.count);
    if (classification()) history.accuracy[at] = static_cast<double>(correct) / static_cast<double>(samples.count);
  };

  using Clock = std::chrono::steady_clock;
  for (int64_t done = 0, slice = 1; done < epochs;) {
    const auto started = Clock::now();
    slice = std::min(slice, epochs - done);
    parallel_for(runs, [&](int run, int thread) {
      Play now = play(run, thread_work_.block(thread));
      for (int64_t i = done; i < done + slice; ++i) {
        epoch(run, now, static_cast<std::size_t>(thread), i);
        ++*now.at(epoch_);
      }
    });
    done += slice;
    const double seconds = std::chrono::duration<double>(Clock::now() - started).count();
    slice = std::max<int64_t>(
        1, static_cast<int64_t>(std::min(2.0 * static_cast<double>(slice), 0.4 * static_cast<double>(slice) / std::max(seconds, 1e-6))));
    if (options.between) options.between();
  }
  return history;
}

Evaluation Learner::evaluate(const Samples& samples) {
  check("learner.evaluate", *network_, loss_, samples);
  const int runs = network_->runs();
  const Blocks workspaces(std::min(get_threads(), runs), evaluation_.work_bytes);
  Evaluation result;
  result.loss.assign(static_cast<std::size_t>(runs), nan_value);
  result.accuracy = result.loss;
  parallel_for(runs, [&](int run, int thread) {
    Play now = play(run, workspaces.block(thread));
    if (!*now.at(alive_)) return;
    double loss = 0;
    int64_t correct = 0;
    for (int64_t first = 0; first < samples.count; first += evaluation_chunk) {
      now.batch = network_->batch(samples, run, first, std::min<int64_t>(evaluation_chunk, samples.count - first));
      play_program(network_->backend(), evaluation_.tape.forward, now);
      play_program(network_->backend(), evaluation_.judge, now);
      loss += *now.at(evaluation_.loss) * now.batch.count;
      correct += *now.at(evaluation_.correct);
    }
    result.loss[static_cast<std::size_t>(run)] = loss / static_cast<double>(samples.count);
    if (classification())
      result.accuracy[static_cast<std::size_t>(run)] = static_cast<double>(correct) / static_cast<double>(samples.count);
  });
  return result;
}

std::vector<float> Learner::forward(const Samples& samples) {
  check_samples("learner.forward", samples);
  prepare(samples.count, true);
  const int64_t size = samples.count * network_->outputs();
  std::vector<float> out(static_cast<std::size_t>(network_->runs() * size));
  parallel_for(network_->runs(), [&](int run, int) {
    Play now = play(run, run_work_.block(run));
    now.batch = network_->batch(samples, run, 0, samples.count);
    play_program(network_->backend(), training_.tape.forward, now);
    std::copy_n(now.at(training_.tape.output), size, out.begin() + run * size);
  });
  stage_ = Stage::forward;
  forward_count_ = samples.count;
  return out;
}

void Learner::backward(const float* grad_output, int64_t count) {
  if (stage_ != Stage::forward) throw Error("[backward] needs a forward() before it");
  if (grad_output == nullptr) throw Error("[backward] grad must be given, got none");
  if (count != forward_count_)
    throw Error("[backward] grad must have the batch of the last forward(), " + std::to_string(forward_count_) + ", got " +
                std::to_string(count));
  const int64_t size = count * network_->outputs();
  parallel_for(network_->runs(), [&](int run, int) {
    Play now = play(run, run_work_.block(run));
    now.batch.count = static_cast<int32_t>(count);
    std::copy_n(grad_output + run * size, size, now.at(training_.tape.grad_output));
    play_program(network_->backend(), training_.tape.backward, now);
  });
  stage_ = Stage::backward;
}

std::vector<std::vector<uint8_t>> Learner::apply() {
  if (stage_ != Stage::backward) throw Error("[apply] needs a backward() before it");
  parallel_for(network_->runs(), [&](int run, int) {
    Play now = play(run, run_work_.block(run));
    now.batch.count = static_cast<int32_t>(forward_count_);
    if (*now.at(alive_)) play_program(network_->backend(), update_, now);
  });
  stage_ = Stage::none;
  return replaced();
}

std::vector<Array> Learner::gradients() const {
  if (stage_ != Stage::backward) throw Error("[gradients] needs a backward() before it");
  Layout grads(space_work);
  static_cast<void>(grads.add<float>("weights", {network_->weights_count()}));
  Slot& slot = grads.slot("weights");
  slot.like_weights = true;
  slot.offset = training_.tape.grads.offset;
  return read_slots(grads, run_work_, network_->parameters());
}

// What was replaced at the last step; nothing in runs that no longer learn.
std::vector<std::vector<uint8_t>> Learner::replaced() const {
  std::vector<std::vector<uint8_t>> all;
  for (std::size_t k = 0; k < network_->units().size(); ++k) {
    const std::size_t units = static_cast<std::size_t>(network_->units()[k].units);
    std::vector<uint8_t> mask(units * static_cast<std::size_t>(network_->runs()));
    for (int r = 0; !replaced_.empty() && r < network_->runs(); ++r)
      if (*blocks_.at(alive_, r)) std::copy_n(blocks_.at(replaced_[k], r), units, mask.begin() + static_cast<int64_t>(units) * r);
    all.push_back(std::move(mask));
  }
  return all;
}

void Learner::restart() {
  network_->reset_all();
  clear_for_restart(layout_, blocks_);
  for (int r = 0; r < network_->runs(); ++r) *blocks_.at(alive_, r) = 1;
  stage_ = Stage::none;
}

std::vector<uint8_t> Learner::alive() const {
  std::vector<uint8_t> all;
  for (int r = 0; r < network_->runs(); ++r) all.push_back(*blocks_.at(alive_, r) != 0);
  return all;
}

std::vector<Array> Learner::state() const {
  std::vector<Array> all = network_->state();
  for (Array& array : read_slots(layout_, blocks_, network_->parameters())) all.push_back(std::move(array));
  return all;
}

void Learner::load_state(const std::vector<Array>& arrays) {
  std::vector<Array> of_network, of_learner;
  const std::vector<Array> known = network_->state();
  for (const Array& array : arrays) {
    const bool network = std::any_of(known.begin(), known.end(), [&](const Array& k) { return k.name == array.name; });
    (network ? of_network : of_learner).push_back(array);
  }
  check_slots(network_->layout(), network_->blocks(), network_->parameters(), of_network, "load_state");  // all or nothing
  write_slots(layout_, blocks_, network_->parameters(), of_learner, "load_state");
  network_->load_state(of_network);
  stage_ = Stage::none;
}

}  // namespace klopf
