// Learning in three calls, so that the loss can be the caller's: forward, backward, apply.

#include <algorithm>
#include <utility>

#include "klopf/error.hpp"
#include "klopf/learner.hpp"
#include "klopf/threads.hpp"
#include "learn/check.hpp"
#include "learn/record.hpp"

namespace klopf {

// Calls work(chunk's play, run, first sample in the batch) for all chunks of all runs, in workspaces that last.
template <class F>
void Learner::for_chunks(const Samples& samples, F work) {
  const Chunks chunks = network_->chunks(samples.count);
  parallel_for(static_cast<int64_t>(network_->runs()) * chunks.count, get_threads(), [&](int64_t item, int) {
    const int run = static_cast<int>(item / chunks.count), index = static_cast<int>(item % chunks.count);
    work(chunk(play(run, run_work_, run, samples, 0, samples.count), index), run, index * chunks.size);
  });
}

void Learner::begin_forward(const Samples& samples) {
  check_samples("learner.forward", samples);
  check_batch("learner.forward", *network_, samples.count);
  prepare(run_work_, samples.count, network_->runs());
  stage_ = Stage::forward;
  forward_count_ = samples.count;
}

DeviceArray Learner::forward_on_device(const Samples& samples) {
  if (!network_->together()) throw Error("[learner.forward] forward_on_device needs a device of its own, got \"cpu\"");
  begin_forward(samples);
  forward_together(samples);
  DeviceArray out(network_->backend().memory(), Type::float32, {network_->runs(), samples.count, network_->outputs()});
  out.take(run_work_, training_.tape.output, 0, samples.count);
  return out;
}

std::vector<float> Learner::forward(const Samples& samples) {
  begin_forward(samples);
  const int64_t outputs = network_->outputs();
  if (network_->together()) {
    forward_together(samples);
    return run_work_.fetch(training_.tape.output, static_cast<std::size_t>(samples.count * outputs));
  }
  std::vector<float> out(static_cast<std::size_t>(network_->runs() * samples.count * outputs));
  for_chunks(samples, [&](const Play& play, int run, int64_t first) {
    play_program(network_->backend(), training_.tape.forward, play);
    play_program(network_->backend(), training_.observe, play);
    std::copy_n(play.at(training_.tape.output), play.batch.count * outputs, out.begin() + (run * samples.count + first) * outputs);
  });
  return out;
}

void Learner::backward(const float* grad_output, int64_t count, bool on_device) {
  if (stage_ != Stage::forward) throw Error("[backward] needs a forward() before it");
  if (network_->log_std().present())
    throw Error("[backward] a network with LogStd() learns by step() and run(), whose loss knows log sigma");
  if (needs_curvature(optimizer_))
    throw Error("[backward] the optimizer needs the curvature of the loss, and learns by step() and run(), whose loss has one");
  if (std::any_of(update_.begin(), update_.end(), [](const Operation& op) { return std::holds_alternative<UnitGrow>(op); }))
    throw Error("[backward] Recruitment with a growth_period needs the loss, and learns by step() and run(), which have one");
  if (grad_output == nullptr) throw Error("[backward] grad must be given, got none");
  if (count != forward_count_)
    throw Error("[backward] grad must have the batch of the last forward(), " + std::to_string(forward_count_) + ", got " +
                std::to_string(count));
  const int64_t outputs = network_->outputs();
  Samples samples;
  samples.count = count;
  stage_ = Stage::backward;
  if (network_->together()) {
    Play play = play_together(run_work_, training_);
    const uint64_t width = static_cast<uint64_t>(count * outputs) * sizeof(float), runs = static_cast<uint64_t>(network_->runs());
    char* to = reinterpret_cast<char*>(play.at(training_.tape.grad_output));
    Memory& memory = *network_->backend().memory();
    if (on_device) memory.copy_within(to, run_work_.stride(), grad_output, width, width, runs), memory.wait();
    else memory.to_device(to, run_work_.stride(), grad_output, width, width, runs);
    play.batch = network_->batch(samples, 0, 0, count);
    return play_program(network_->backend(), training_.tape.backward, play);
  }
  for_chunks(samples, [&](const Play& play, int run, int64_t first) {
    std::copy_n(grad_output + (run * count + first) * outputs, play.batch.count * outputs, play.at(training_.tape.grad_output));
    play_program(network_->backend(), training_.tape.backward, play);
  });
}

std::vector<std::vector<uint8_t>> Learner::apply() {
  if (stage_ != Stage::backward) throw Error("[apply] needs a backward() before it");
  Samples samples;
  samples.count = forward_count_;
  stage_ = Stage::none;
  const auto all_runs = [&] {
    Play play = play_together(run_work_, training_);
    play.batch = network_->batch(samples, 0, 0, forward_count_);
    return play;
  };
  if (network_->together()) network_->backend().loss_total({{}, {}, alive_, training_.active}, all_runs());
  if (pauses()) {
    update_with_turns([&](int run) { return network_->together() ? all_runs() : play(run, run_work_, run, samples, 0, forward_count_); });
    return std::move(replaced().get());
  }
  if (network_->together()) {
    play_program(network_->backend(), update_, all_runs());
    return std::move(replaced().get());
  }
  parallel_for(network_->runs(), get_threads(), [&](int64_t item, int) {
    const int run = static_cast<int>(item);
    if (*blocks_.at(alive_, run)) play_program(network_->backend(), update_, play(run, run_work_, run, samples, 0, forward_count_));
  });
  return std::move(replaced().get());
}

std::vector<Array> Learner::gradients() const {
  if (stage_ != Stage::backward) throw Error("[gradients] needs a backward() before it");
  Layout layout(space_learner);
  const Ref<float> sum = layout.add<float>("weights", {network_->weights_count()});
  layout.slot("weights").like_weights = true;
  const Blocks sums(network_->runs(), layout.bytes());
  if (network_->together()) {
    sums.put(sum, run_work_.fetch(training_.tape.grads, static_cast<std::size_t>(network_->weights_count())));
    return read_slots(layout, sums, network_->parameters());
  }
  const int chunks = network_->chunks(forward_count_).count;
  for (int run = 0; run < network_->runs(); ++run)
    for (int c = 0; c < chunks; ++c) {
      const float* grads = run_work_.at(training_.tape.grads, run * most_chunks_ + c);
      for (int64_t i = 0; i < network_->weights_count(); ++i) sums.at(sum, run)[i] += grads[i];
    }
  return read_slots(layout, sums, network_->parameters());
}

}  // namespace klopf
