#include "klopf/traces.hpp"

#include <algorithm>

#include "klopf/error.hpp"
#include "learn/record.hpp"

namespace klopf {
namespace {

// For ObGD on linear layers: traces and their norm as the backward pass goes through the weights. Else as it was.
void fuse(const Recording& recording, const UpdateTraces& traces, Program& backward, Program& update) {
  const auto is_bound = [](const Operation& op) { return std::holds_alternative<BoundSteps>(op); };
  const auto is_cut = [](const Operation& op) { return std::holds_alternative<CutUnits>(op); };
  if (!recording.step_sizes || recording.step_sizes->rule != StepRule::obgd || std::none_of(update.begin(), update.end(), is_bound) ||
      std::any_of(update.begin(), update.end(), is_cut))
    return;
  Program fused;
  const std::vector<StepLayer> layers = step_layers(recording.network);
  for (const Operation& operation : backward) {
    const LinearBackward* layer = std::get_if<LinearBackward>(&operation);
    if (!layer) {
      if (!std::holds_alternative<ActivationBackward>(operation) && !std::holds_alternative<LayerNormBackward>(operation)) return;
      fused.push_back(operation);
      continue;
    }
    const uint64_t place = layer->grad_weight.offset - traces.grads.offset, bias = layer->grad_bias.offset - traces.grads.offset;
    const auto rows = std::find_if(layers.begin(), layers.end(),
                                   [&](const StepLayer& l) { return static_cast<uint64_t>(l.weight) * sizeof(float) == place; });
    const Ref<double> sums = recording.step_sizes->sums;
    LinearBackwardTrace op{*layer,
                           {traces.traces.space, traces.traces.offset + place},
                           {traces.traces.space, traces.traces.offset + bias},
                           traces.decay,
                           {sums.space, sums.offset + 2 * sizeof(double) * static_cast<uint64_t>(rows->first_row)}};
    op.layer.grad_weight = op.layer.grad_bias = {};
    fused.push_back(op);
  }
  backward = fused;
  std::erase_if(update,
                [](const Operation& op) { return std::holds_alternative<UpdateTraces>(op) || std::holds_alternative<MeasureSteps>(op); });
}

}  // namespace

TraceLearner::TraceLearner(const std::string& owner, std::shared_ptr<Network> network, const Optimizer& optimizer,
                           const std::vector<Rule>& rules, const Shared& shared)
    : network_(std::move(network)) {
  if (network_->log_std().present()) throw Error("[" + owner + "] a network of a streaming agent must not end with LogStd()");
  const Ref<int64_t> step = layout_.add<int64_t>("step");
  if (network_->normalises_batches()) throw Error("[" + owner + "] a network that learns one sample at a time must not have BatchNorm");
  now_ = network_->record(work_, 1, {.training = true, .step = step});
  ahead_ = network_->record(work_, 1);
  Recording recording{*network_, layout_, work_, now_, observe_, update_, step, shared.alive};
  const Ref<float> traces = for_each_weight<float>(recording, "traces");
  recording.traces = {traces, shared.delta, shared.decay, shared.fade, shared.cut};
  const UpdateTraces update{network_->weights_count(), now_.grads, traces, shared.decay};
  if (!std::holds_alternative<SwiftTD>(optimizer)) update_.push_back(update);  // which has traces of its own kind
  const bool of_gradients = std::visit([]<class O>(const O&) { return follows_gradients<O>; }, optimizer);
  if (of_gradients) update_.push_back(TraceGradient{network_->weights_count(), traces, now_.grads, shared.delta});
  if (decays_to_initial(optimizer)) network_->keep_initial();
  record(optimizer, recording);
  for (const Rule& rule : rules) record(rule, recording);
  if (!recording.pauses.empty()) throw Error("[" + owner + "] rules in Python are for a Learner, not for streaming agents");
  record_absences(recording);
  update_.push_back(Advance{step});
  step_sizes_ = recording.step_sizes;
  fuse(recording, update, now_.backward, update_);

  blocks_ = Blocks(network_->runs(), layout_.bytes(), network_->backend().memory());
  blocks_.on_host(true);
  for (int r = 0; r < network_->runs(); ++r)
    for (const auto& [ref, value] : recording.hyper) *blocks_.at(ref, r) = value[r];
}

void TraceLearner::complete() { workspaces_ = Blocks(network_->runs(), work_.bytes(), network_->backend().memory(), false); }

Play TraceLearner::play(int run) const {
  if (network_->together()) {
    Play play = network_->play(workspaces_);
    play.base[space_learner] = blocks_.to_play();
    play.stride[space_learner] = blocks_.stride();
    return play;
  }
  Play play;
  play.base[space_network] = network_->blocks().block(run);
  play.base[space_learner] = blocks_.block(run);
  play.base[space_work] = workspaces_.block(run);
  return play;
}

void TraceLearner::look(const Play& play) const {
  play_program(network_->backend(), now_.forward, play);
  play_program(network_->backend(), observe_, play);
}

void TraceLearner::judge(const Play& play) const { play_program(network_->backend(), ahead_.forward, play); }

void TraceLearner::learn(const Play& play) const {
  play_program(network_->backend(), now_.backward, play);
  play_program(network_->backend(), update_, play);
}

std::vector<float> TraceLearner::outputs() const { return workspaces_.fetch(now_.output, static_cast<std::size_t>(network_->outputs())); }

std::vector<Array> TraceLearner::step_sizes() const { return step_sizes_of(step_sizes_, *network_, blocks_); }

std::vector<Array> TraceLearner::state() const {
  std::vector<Array> all = network_->state();
  for (Array& array : read_slots(layout_, blocks_, network_->parameters())) all.push_back(std::move(array));
  return all;
}

namespace {

// Those of the network, and the learner's own.
std::pair<std::vector<Array>, std::vector<Array>> split(const Network& network, const std::vector<Array>& arrays) {
  std::pair<std::vector<Array>, std::vector<Array>> parts;
  const std::vector<Array> known = network.state();
  for (const Array& array : arrays) {
    const bool theirs = std::any_of(known.begin(), known.end(), [&](const Array& k) { return k.name == array.name; });
    (theirs ? parts.first : parts.second).push_back(array);
  }
  return parts;
}

}  // namespace

void TraceLearner::check_state(const std::vector<Array>& arrays) const {
  const auto [of_network, own] = split(*network_, arrays);
  check_slots(network_->layout(), network_->blocks(), network_->parameters(), of_network, "load_state");
  network_->check_masks(of_network, "load_state");
  check_slots(layout_, blocks_, network_->parameters(), own, "load_state");
}

void TraceLearner::load_state(const std::vector<Array>& arrays) {
  check_state(arrays);
  const auto [of_network, own] = split(*network_, arrays);
  write_slots(layout_, blocks_, network_->parameters(), own, "load_state");
  network_->load_state(of_network);
}

}  // namespace klopf
