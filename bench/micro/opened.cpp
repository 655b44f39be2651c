#include "opened.hpp"

#include <algorithm>

namespace klopf::micro {

Opened::Opened(const Case& of, int runs, const std::string& device, const std::string& precision, int copies)
    : net_(network(of, runs, device, precision)), data_(of, *net_, of.batch, runs > 1) {
  WorkLayout memory;
  const Tape tape = net_->record(memory, of.batch, {.training = true});
  const auto step = layout_.add<int64_t>("step");
  alive_ = layout_.add<int32_t>("alive");
  Program observe, update;
  Recording recording{*net_, layout_, memory, tape, observe, update, step, alive_};
  Optimizer optimizer = of.optimizer;
  const auto hold = [](auto& o) {
    if constexpr (requires { o.step_size; }) o.step_size = 1e-12;
  };
  std::visit(hold, optimizer);  // weights stay where they are, however often one update is played
  klopf::record(optimizer, recording);
  for (const Rule& rule : of.rules) klopf::record(rule, recording);
  update.push_back(Advance{step});

  loss_ = memory.take<double>(1);
  const auto correct = memory.take<int32_t>(1), active = memory.take<int32_t>(1);
  program_ = tape.forward;
  program_.insert(program_.end(), observe.begin(), observe.end());
  program_.push_back(Loss{static_cast<LossKind>(choice("", "", of.loss, loss_names())), static_cast<int32_t>(net_->outputs()), tape.output,
                          tape.grad_output, loss_, correct});
  program_.insert(program_.end(), tape.backward.begin(), tape.backward.end());
  program_.push_back(LossTotal{loss_, correct, alive_, active});
  program_.insert(program_.end(), update.begin(), update.end());

  const std::shared_ptr<Memory> where = net_->backend().memory();
  learner_ = Blocks(runs, layout_.bytes(), where);
  work_ = Blocks(where ? runs : 1, memory.bytes(), where, false);
  learner_.on_host(true);
  for (int r = 0; r < runs; ++r) {
    *learner_.at(alive_, r) = 1;
    for (const auto& [ref, value] : recording.hyper) *learner_.at(ref, r) = value[r];
  }

  const Samples samples = net_->stage(data_.samples);
  Play play = net_->play(work_);
  play.base[space_learner] = learner_.to_play();
  play.stride[space_learner] = learner_.stride();
  if (where) play.active = active;
  else play.runs = 1;
  for (int r = 0; r < runs; r += play.runs) {
    play.batch = net_->batch(samples, r, 0, of.batch);
    plays_.push_back(play);
    for (const auto space : {space_network, space_learner}) play.base[space] += play.stride[space];
  }
  for (int i = 0; i < 3; ++i) play_step();
  for (int copy = 1; where && copy < copies; ++copy)
    for (int space = 0; space < spaces; ++space) {
      copies_.emplace_back(runs, play.stride[space], where, false);
      const uint64_t bytes = play.stride[space] * static_cast<uint64_t>(runs);
      where->copy_within(copies_.back().to_play(), bytes, plays_.front().base[space], bytes, bytes, 1);
    }
}

bool Opened::all_alive() const {
  const std::vector<int32_t> alive = learner_.fetch(alive_);
  return std::all_of(alive.begin(), alive.end(), [](int32_t a) { return a != 0; });
}

}  // namespace klopf::micro
