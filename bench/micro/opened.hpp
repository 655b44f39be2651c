#pragma once
#include <memory>
#include <string>
#include <vector>

#include "learn/record.hpp"
#include "networks.hpp"

namespace klopf::micro {

// A learner laid open: the list of a step's operations, as learners record it, with memory that one step has been played on; on a
// device that memory several times, to be played in turns, so that what one turn leaves in the cache is gone when it comes again. A
// new operation or layer shows up here as soon as a network of networks.hpp uses it.
class Opened {
 public:
  explicit Opened(const Case& of, int runs = 1, const std::string& device = "cpu", const std::string& precision = "float32",
                  int copies = 1);
  const Program& program() const { return program_; }
  const Batch& batch() const { return plays_.front().batch; }
  int copies() const { return 1 + static_cast<int>(copies_.size()) / spaces; }
  // For all runs: at once on devices that can, else one after the other.
  void play(const Operation& operation, int copy = 0) {
    for (Play play : plays_) {
      for (int space = 0; copy > 0 && space < spaces; ++space)
        play.base[space] = copies_[static_cast<std::size_t>((copy - 1) * spaces + space)].to_play();
      std::visit([&](const auto& op) { call(net_->backend(), op, play); }, operation);
    }
  }
  void play_step(int copy = 0) {
    for (const Operation& operation : program_) play(operation, copy);
  }
  std::shared_ptr<Graph> record(const std::function<void()>& work) { return net_->backend().record(work); }
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
  static constexpr int spaces = 3;  // work, learner, network
  std::vector<Blocks> copies_;
};

}  // namespace klopf::micro
