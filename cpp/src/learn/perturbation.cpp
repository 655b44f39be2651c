// The goal to be listened to, by perturbation, puts its operations into a recording.
#include <algorithm>

#include "klopf/error.hpp"
#include "learn/record.hpp"

namespace klopf {

void record_perturbation(Recording& r, const std::string& owner, std::size_t k, GoalPerturbation op) {
  const Units& g = op.units.group;
  const auto other = [&](const Operation& operation) {
    const auto* perturbed = std::get_if<GoalPerturbation>(&operation);
    return perturbed && perturbed->units.group.key == g.key;
  };
  if (std::any_of(r.update.begin(), r.update.end(), other))  // whose random numbers would be the same
    throw Error("[" + owner + "] units of layer " + std::to_string(g.place) + " follow another goal by perturbation");
  op.before =
      r.work.take<float>(static_cast<std::size_t>(g.outputs) * static_cast<std::size_t>(g.taps) * static_cast<std::size_t>(g.units));
  if (k + 1 < r.backbone.size()) op.successors = r.backbone[k + 1];
  if (k + 1 < r.replaced.size()) op.renewed = r.replaced[k + 1];
  const auto add = [&](const char* name) { return of_units<float>(r, owner, k, name, {g.units}); };
  op.reward = add("reward");
  op.compared = of_units<int32_t>(r, owner, k, "compared", {g.units});
  op.baseline = add("baseline");
  op.square = add("square");
  op.scale = add("scale");
  op.perturbation = of_units<float>(r, owner, k, "perturbation", {g.units, g.fan_in + 1});
  op.trace = of_units<float>(r, owner, k, "trace", {g.units, g.fan_in + 1});
  op.seed = r.network.seed();
  op.step = r.step;
  r.observe.push_back(RememberOutgoing{g, op.before});  // not later: of one sample weights may change within the backward pass
  r.update.push_back(op);
}

}  // namespace klopf
