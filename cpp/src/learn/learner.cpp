#include "klopf/learner.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "klopf/error.hpp"
#include "klopf/threads.hpp"
#include "learn/check.hpp"
#include "learn/record.hpp"
#include "rules/policies.hpp"

namespace klopf {
namespace {

constexpr double nan_value = std::numeric_limits<double>::quiet_NaN();
constexpr int evaluation_chunk = 64;

}  // namespace

Learner::Learner(std::shared_ptr<Network> network, LossSpec loss, Optimizer optimizer, std::vector<Rule> rules,
                 std::optional<PerRun> max_gradient_norm, int events)
    : network_(std::move(network)),
      loss_(std::move(loss)),
      classification_(loss_ == LossSpec("cross_entropy")),
      counts_(classification_ || std::holds_alternative<ClippedPolicy>(loss_)),
      optimizer_(std::move(optimizer)),
      rules_(std::move(rules)),
      max_gradient_norm_(std::move(max_gradient_norm)) {
  if (!network_) throw Error("[learner] network must be given, got none");
  check(*network_, loss_, optimizer_);
  if (decays_to_initial(optimizer_)) network_->keep_initial();
  step_ = layout_.add<int64_t>("step");
  epoch_ = layout_.add<int64_t>("epoch");
  alive_ = layout_.add<int32_t>("alive");
  constexpr int most_events = 1 << 24;
  if (events < 0 || events > most_events)
    throw Error("[learner] events must be from 0 to " + std::to_string(most_events) + ", got " + std::to_string(events));
  if (events > 0) {
    const auto place = [&]<class T>(Ref<T>& ref, const char* name, std::vector<int64_t> shape) {
      ref = layout_.add<T>(std::string("events.") + name, std::move(shape));
    };
    log_.capacity = events;
    place(log_.count, "count", {});
    place(log_.step, "step", {events});
    place(log_.group, "group", {events});
    place(log_.unit, "unit", {events});
    place(log_.age, "age", {events});
    place(log_.cause, "cause", {events});
    place(log_.utility, "utility", {events});
  }
  const auto hyper = record(1);
  blocks_ = Blocks(network_->runs(), layout_.bytes(), network_->backend().memory());
  blocks_.on_host(true);
  for (int r = 0; r < network_->runs(); ++r) {
    *blocks_.at(alive_, r) = 1;
    for (const auto& [ref, value] : hyper) *blocks_.at(ref, r) = value[r];
  }
  WorkLayout work;
  evaluation_.tape = network_->record(work, evaluation_chunk);
  place_loss(evaluation_, work);
  record_loss(evaluation_, work, evaluation_chunk);
}

bool Learner::chooses() const {
  const ClippedPolicy* policy = std::get_if<ClippedPolicy>(&loss_);
  return policy && distribution_of(*policy) == Distribution::categorical;
}

std::string Learner::loss_name() const {
  const std::string* name = std::get_if<std::string>(&loss_);
  return name ? *name : "ClippedPolicy";
}

int64_t Learner::target_size() const {
  const ClippedPolicy* policy = std::get_if<ClippedPolicy>(&loss_);
  return policy ? policy_target_size(distribution_of(*policy), static_cast<int>(network_->outputs())) : network_->outputs();
}

// Side by side, as they are read in one copy.
void Learner::place_loss(Pass& pass, WorkLayout& work) {
  pass.loss = work.take<double>(1);
  pass.correct = work.take<int32_t>(1);
}

void Learner::record_loss(Pass& pass, WorkLayout& work, int capacity) {
  pass.active = work.take<int32_t>(1);
  pass.sums = {work.take<double>(1), work.take<int64_t>(1), work.take<int64_t>(1)};
  pass.tally = {pass.loss, pass.correct, pass.sums};
  const int32_t outputs = static_cast<int32_t>(network_->outputs());
  if (const ClippedPolicy* policy = std::get_if<ClippedPolicy>(&loss_)) {
    const Tape& tape = pass.tape;
    const auto by_sample = work.take<double>(static_cast<std::size_t>(capacity)),
               by_output = work.take<double>(static_cast<std::size_t>(outputs));
    const Ref<float> log_std = network_->log_std();
    Ref<float> grad_log_std{};
    if (log_std.present() && tape.grads.present())
      grad_log_std = {space_work, tape.grads.offset + log_std.offset - network_->weights().offset};
    pass.judge = {PolicyLoss{distribution_of(*policy), outputs, tape.output, tape.grad_output, log_std, grad_log_std, clip_, entropy_,
                             by_sample, by_output, pass.loss, pass.correct}};
  } else {
    const auto kind = static_cast<LossKind>(choice("learner", "loss", std::get<std::string>(loss_), loss_names()));
    pass.judge = {Loss{kind, outputs, pass.tape.output, pass.tape.grad_output, pass.loss, pass.correct}};
    if (pass.tape.curvatures.present()) {
      pass.curve = {CurvatureProbe{kind, outputs, pass.tape.output, pass.tape.grad_output, network_->seed(), step_}};
      pass.curve.insert(pass.curve.end(), pass.tape.curvature.begin(), pass.tape.curvature.end());
    }
  }
  pass.work_bytes = work.bytes();
}

std::vector<std::pair<Ref<double>, PerRun>> Learner::record(int capacity) {
  WorkLayout work;
  training_ = {};
  update_.clear();
  training_.tape = network_->record(work, capacity, {true, needs_curvature(optimizer_), needs_host(optimizer_, rules_), step_});
  Recording recording{*network_, layout_, work, training_.tape, training_.observe, update_, step_, alive_};
  recording.log = log_;
  place_loss(training_, work);
  recording.loss = training_.loss;
  if (needs_host(optimizer_, rules_)) update_.push_back(AddChunks{network_->weights_count(), training_.tape.grads});
  if (const ClippedPolicy* policy = std::get_if<ClippedPolicy>(&loss_)) {
    clip_ = recording.number("ClippedPolicy", "clip", policy->clip, 0, HUGE_VAL);
    entropy_ = recording.number("ClippedPolicy", "entropy", policy->entropy, 0, HUGE_VAL);
  }
  if (max_gradient_norm_)
    update_.push_back(ClipGradient{network_->weights_count(), training_.tape.grads,
                                   recording.number("learner", "max_gradient_norm", *max_gradient_norm_, 0, HUGE_VAL)});
  update_.insert(update_.end(), training_.tape.follow.begin(), training_.tape.follow.end());
  klopf::record(optimizer_, recording);
  for (const Rule& rule : rules_) klopf::record(rule, recording);
  record_absences(recording);
  update_.push_back(Advance{step_});
  replaced_ = recording.replaced;
  step_sizes_ = recording.step_sizes;
  begin_.clear();
  for (const Units& group : recording.groups) begin_.push_back(beginning(recording, group, "", {}, true));
  pauses_ = recording.pauses;
  if (pauses() || !record_online(recording, online_backward_, online_update_)) online_backward_.clear();
  record_loss(training_, work, capacity);
  thread_work_ = {};
  run_work_ = {};
  recorded_.clear();
  stage_ = Stage::none;
  return recording.hyper;
}

// So many workspaces, each for a batch of so many samples.
void Learner::prepare(Blocks& work, int64_t batch, int workspaces) {
  const Chunks most = network_->together() ? Chunks{1, static_cast<int>(batch)} : network_->most_chunks(batch);
  const int before = training_.tape.capacity;
  if (most.size > before) record(most.size);
  if (most.count > most_chunks_) {
    most_chunks_ = most.count;
    thread_work_ = {};
    run_work_ = {};
    stage_ = Stage::none;
  }
  if (work.count() >= workspaces * most_chunks_) return;
  try {
    work = Blocks(workspaces * most_chunks_, training_.work_bytes, network_->backend().memory(), false);
  } catch (...) {  // too much memory: smaller batches may still fit
    if (most.size > before && before > 0) record(before);
    throw;
  }
}

bool Learner::share_runs(int64_t batch) const { return get_threads() > network_->runs() && network_->chunks(batch).count > 1; }

// A batch of a run in one of the workspaces.
Play Learner::play(int run, const Blocks& work, int workspace, const Samples& samples, int64_t first, int64_t count) const {
  const Chunks chunks = network_->chunks(count);
  Play play;
  play.base[space_network] = network_->blocks().block(run);
  play.base[space_learner] = blocks_.block(run);
  play.base[space_work] = work.block(workspace * most_chunks_);
  play.stride[space_work] = work.stride();
  play.chunks = chunks.count;
  play.chunk_size = chunks.size;
  play.batch = network_->batch(samples, run, first, count);
  return play;
}

Play Learner::chunk(const Play& batch, int index) const {
  Play play = batch;
  play.base[space_work] += play.stride[space_work] * static_cast<uint64_t>(index);
  play.chunks = 1;
  play.batch.first += play.batch.place = index * batch.chunk_size;
  play.batch.count = batch.count_of(index);
  return play;
}

void Learner::forward_backward(const Play& batch, int index) {
  const Play play = chunk(batch, index);
  for (const Program* program : {&training_.tape.forward, &training_.observe, &training_.judge, &training_.tape.backward, &training_.curve})
    play_program(network_->backend(), *program, play);
}

// After the chunks: what is done once a batch. Leaves loss and count of the correct in the first chunk's workspace.
void Learner::finish(const Play& batch) {
  network_->backend().loss_total({training_.loss, training_.correct, alive_, {}}, batch);
  if (*batch.at(alive_)) play_program(network_->backend(), update_, batch);
}

// One step of one run that is alive.
void Learner::learn(const Play& batch) {
  Backend& backend = network_->backend();
  if (batch.batch.total > 1 || online_backward_.empty()) {
    for (int c = 0; c < batch.chunks; ++c) forward_backward(batch, c);
    return finish(batch);
  }
  for (const Program* program : {&training_.tape.forward, &training_.observe, &training_.judge}) play_program(backend, *program, batch);
  backend.loss_total({training_.loss, training_.correct, alive_, {}}, batch);
  if (!*batch.at(alive_)) return;
  play_program(backend, online_backward_, batch);
  play_program(backend, online_update_, batch);
}

Later<StepResult> Learner::step_later(const Samples& samples) {
  check("learner.step", *this, samples);
  check_batch("learner.step", *network_, samples.count);
  if (pauses()) return step_with_turns(samples);
  if (network_->together()) return step_together(samples);
  const int runs = network_->runs(), threads = get_threads(), chunks = network_->chunks(samples.count).count;
  const bool shared = share_runs(samples.count);
  const int workspaces = std::min(threads, runs);
  prepare(thread_work_, samples.count, workspaces);
  StepResult result;
  result.loss.assign(static_cast<std::size_t>(runs), nan_value);
  result.accuracy = result.loss;
  const auto batch = [&](int run, int workspace) { return play(run, thread_work_, workspace, samples, 0, samples.count); };
  if (shared)
    parallel_for(runs * chunks, threads, [&](int64_t item, int) {
      const int run = static_cast<int>(item / chunks);
      if (*blocks_.at(alive_, run)) forward_backward(batch(run, run), static_cast<int>(item % chunks));
    });
  parallel_for(runs, workspaces, [&](int64_t item, int thread) {
    const int run = static_cast<int>(item);
    if (!*blocks_.at(alive_, run)) return;
    const Play now = batch(run, shared ? run : thread);
    shared ? finish(now) : learn(now);
    const std::size_t at = static_cast<std::size_t>(run);
    result.loss[at] = *now.at(training_.loss);
    if (counts_) result.accuracy[at] = static_cast<double>(*now.at(training_.correct)) / static_cast<double>(samples.count);
  });
  result.replaced = std::move(replaced().get());
  return result;
}

Later<Evaluation> Learner::evaluate_later(const Samples& samples) {
  check("learner.evaluate", *this, samples);
  if (network_->together()) return evaluate_together(samples);
  const int64_t runs = network_->runs(), chunks = (samples.count + evaluation_chunk - 1) / evaluation_chunk;
  const Blocks work(static_cast<int>(std::min<int64_t>(get_threads(), runs * chunks)), evaluation_.work_bytes);
  std::vector<double> losses(static_cast<std::size_t>(runs * chunks));
  std::vector<int64_t> correct(losses.size());
  parallel_for(runs * chunks, work.count(), [&](int64_t item, int thread) {
    const int run = static_cast<int>(item / chunks);
    if (!*blocks_.at(alive_, run)) return;
    const int64_t first = item % chunks * evaluation_chunk;
    Play play;
    play.base[space_network] = network_->blocks().block(run);
    play.base[space_learner] = blocks_.block(run);
    play.base[space_work] = work.block(thread);
    play.batch = network_->batch(samples, run, first, std::min<int64_t>(evaluation_chunk, samples.count - first));
    play_program(network_->backend(), evaluation_.tape.forward, play);
    play_program(network_->backend(), evaluation_.judge, play);
    losses[static_cast<std::size_t>(item)] = *play.at(evaluation_.loss) * play.batch.count;
    correct[static_cast<std::size_t>(item)] = *play.at(evaluation_.correct);
  });
  Evaluation result;
  for (int64_t run = 0; run < runs; ++run) {
    const bool is_alive = *blocks_.at(alive_, static_cast<int>(run));
    const int64_t from = run * chunks, to = from + chunks;
    const double loss = std::accumulate(losses.begin() + from, losses.begin() + to, 0.0);
    const int64_t right = std::accumulate(correct.begin() + from, correct.begin() + to, int64_t{0});
    result.loss.push_back(is_alive ? loss / static_cast<double>(samples.count) : nan_value);
    result.accuracy.push_back(is_alive && counts_ ? static_cast<double>(right) / static_cast<double>(samples.count) : nan_value);
  }
  return result;
}

void Learner::restart() {
  network_->restart();
  clear_for_restart(layout_, blocks_);
  blocks_.put(alive_, std::vector<int32_t>(static_cast<std::size_t>(network_->runs()), 1));
  stage_ = Stage::none;
}

std::vector<uint8_t> Learner::alive() const {
  const std::vector<int32_t> all = blocks_.fetch(alive_);
  return {all.begin(), all.end()};
}

std::vector<Array> Learner::state() const {
  std::vector<Array> all = network_->state();
  for (Array& array : read_slots(layout_, blocks_, network_->parameters())) all.push_back(std::move(array));
  return all;
}

void Learner::load_state(const std::vector<Array>& arrays) { load_state(arrays, true); }
void Learner::check_state(const std::vector<Array>& arrays) { load_state(arrays, false); }

void Learner::load_state(const std::vector<Array>& arrays, bool write) {
  std::vector<Array> of_network, of_learner;
  const std::vector<Array> known = network_->state();
  for (const Array& array : arrays) {
    const bool network = std::any_of(known.begin(), known.end(), [&](const Array& k) { return k.name == array.name; });
    (network ? of_network : of_learner).push_back(array);
  }
  check_slots(network_->layout(), network_->blocks(), network_->parameters(), of_network, "load_state");  // all or nothing
  network_->check_masks(of_network, "load_state");
  check_slots(layout_, blocks_, network_->parameters(), of_learner, "load_state");
  if (!write) return;
  write_slots(layout_, blocks_, network_->parameters(), of_learner, "load_state");
  network_->load_state(of_network);
  stage_ = Stage::none;
}

}  // namespace klopf
