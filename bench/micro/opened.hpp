#pragma once
#include <memory>
#include <string>
#include <vector>

#include "learn/record.hpp"
#include "networks.hpp"

namespace klopf::micro {

// A learner laid open: the list of a step's operations, as learners record it, with memory that one step has been played on. A new
// operation or layer shows up here as soon as a network of networks.hpp uses it.
class Opened {
 public:
  explicit Opened(const Case& of, int runs = 1, const std::string& device = "cpu", const std::string& precision = "float32");
  const Program& program() const { return program_; }
  const Batch& batch() const { return plays_.front().batch; }
  // For all runs: at once on devices that can, else one after the other.
  void play(const Operation& operation) {
    for (const Play& play : plays_) std::visit([&](const auto& op) { call(net_->backend(), op, play); }, operation);
  }
  void play_step() {
    for (const Operation& operation : program_) play(operation);
  }
  void wait() const { static_cast<void>(work_.fetch(loss_)); }
  // Runs that diverged are left out by operations, which would then seem fast.
  bool all_alive() const;

 private:
  std::shared_ptr<Network> net_;
  Data data_;
  Layout layout_{space_learner};
  Blocks learner_, work_;
  Ref<int32_t> alive_;
  Ref<double> loss_;
  Program program_;
  std::vector<Play> plays_;
};

}  // namespace klopf::micro
