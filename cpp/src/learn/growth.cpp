// Units that are added and removed by hand, between two steps.
#include <algorithm>

#include "klopf/error.hpp"
#include "klopf/learner.hpp"
#include "learn/record.hpp"

namespace klopf {

void Learner::add_units(std::size_t group, const std::vector<uint8_t>& units) { change_units("add_units", group, units, true); }
void Learner::remove_units(std::size_t group, const std::vector<uint8_t>& units) { change_units("remove_units", group, units, false); }

// In the host's memory, whatever the device: the random numbers are the same.
void Learner::change_units(const char* where, std::size_t group, const std::vector<uint8_t>& units, bool add) {
  const std::string at = "[" + std::string(where) + "] ";
  if (group >= begin_.size())
    throw Error(at + "group must be a place in Network.units, below " + std::to_string(begin_.size()) + ", got " + std::to_string(group));
  UnitReplace op = begin_[group];
  const Units& g = op.group;
  const int runs = network_->runs();
  const std::size_t count = static_cast<std::size_t>(g.units);
  if (!g.vacant.present())
    throw Error(at + "the units of layer " + std::to_string(g.place) + " live always; others may come and go, as of Linear(64, living=8)");
  if (units.size() != count * static_cast<std::size_t>(runs))
    throw Error(at + "units must be a mask of " + std::to_string(runs) + " x " + std::to_string(count) + ", got " +
                std::to_string(units.size()) + " numbers");
  const std::vector<uint8_t> vacant = network_->blocks().fetch(g.vacant, count);
  for (std::size_t i = 0; i < units.size(); ++i)
    if (units[i] && static_cast<bool>(vacant[i]) != add)
      throw Error(at + "unit " + std::to_string(i % count) + " of run " + std::to_string(i / count) +
                  (add ? " lives already" : " does not live"));
  network_->blocks().on_host(true);
  blocks_.on_host(true);
  WorkLayout work;
  op.replaced = work.take<uint8_t>(count);
  op.transfer_mean_to_bias = !add;
  const Blocks mask(1, work.bytes());
  const std::shared_ptr<Backend> backend = make_cpu_backend();
  for (int run = 0; run < runs; ++run) {
    const auto first = units.begin() + static_cast<std::ptrdiff_t>(count) * run;
    std::copy_n(first, count, mask.at(op.replaced, 0));
    Play play;
    play.base[space_network] = network_->blocks().block(run);
    play.base[space_learner] = blocks_.block(run);
    play.base[space_work] = mask.block(0);
    backend->unit_replace(op, play);
    for (std::size_t u = 0; u < count && !add; ++u)
      if (first[static_cast<std::ptrdiff_t>(u)]) play.at(g.vacant)[u] = 1;
    for (const UnitReplace& each : begin_) play_program(*backend, network_->absent(each.group), play);
  }
  stage_ = Stage::none;
}

}  // namespace klopf
