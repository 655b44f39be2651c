#pragma once
#include <math.h>

#include "klopf/philox.hpp"
#include "rules/birth.hpp"
#include "rules/growth.hpp"

// Units of a linear layer that listen to some of its inputs. `run` is 0 where a play is of one run.
namespace klopf {

// A unit's wires drawn anew: so many of its inputs, each as likely as any other (Floyd's way).
KLOPF_FN void draw_wires_of(const Units& group, const Play& play, int run, int unit, uint64_t seed, Stream stream, uint64_t step) {
  const int inputs = group.fan_in, count = group.wire_count;
  float* wires = play.at(group.wires, run) + static_cast<int64_t>(unit) * inputs;
  for (int i = 0; i < inputs; ++i) wires[i] = 0;
  for (int k = 0; k < count; ++k) {
    const int last = inputs - count + k;
    const float u = uniform_at(seed, stream, static_cast<uint32_t>(group.key), step, static_cast<uint32_t>(unit * count + k));
    int chosen = static_cast<int>(u * static_cast<float>(last + 1));
    if (chosen > last) chosen = last;  // rounded up
    wires[wires[chosen] != 0 ? last : chosen] = 1;
  }
}

// The weakest wire older than `maturity`: equal ones: lowest index; or -1.
KLOPF_FN int weakest_wire(const float* wires, const float* weights, const int32_t* age, int inputs, double maturity) {
  int weakest = -1;
  for (int i = 0; i < inputs; ++i)
    if (wires[i] != 0 && age[i] > maturity && (weakest < 0 || fabsf(weights[i]) < fabsf(weights[weakest]))) weakest = i;
  return weakest;
}

// A step of a unit: the share of its wires that is due is dropped, and as many others are tried.
KLOPF_FN void rewire(const UnitRewire& op, const Play& play, int run, int unit) {
  const Units& g = op.group;
  const int inputs = g.fan_in, absent = inputs - g.wire_count;
  const int64_t first = static_cast<int64_t>(unit) * inputs;
  float *wires = play.at(g.wires, run) + first, *weights = play.at(g.incoming, run) + first, *origin = play.at(op.origin, run);
  int32_t* age = play.at(op.wire_age, run) + first;
  double& carry = play.at(op.carry, run)[unit];
  const uint8_t* replaced = play.at(op.replaced, run);
  if ((replaced && replaced[unit]) || !lives(g, play, run, unit)) {
    for (int i = 0; i < inputs; ++i) age[i] = 0;
    carry = 0;
    return;
  }
  const double maturity = *play.at(op.maturity, run);
  int mature = 0;
  for (int i = 0; i < inputs; ++i) {
    if (wires[i] == 0) continue;
    age[i] += 1;
    mature += age[i] > maturity;
  }
  carry += *play.at(op.rate, run) * mature;
  const int due = static_cast<int>(carry), most = mature < absent ? mature : absent, count = due < most ? due : most;
  carry -= count;
  const auto begin = [&](int place, int32_t with_age) {
    const int64_t at = weights + place - play.at(op.weights, run);
    weights[place] = 0;
    age[place] = with_age;
    if (origin) origin[at] = 0;
    for (const WeightState& state : op.state) begin_anew(state, play, run, at);
  };
  constexpr int32_t just_dropped = -1;  // an age that keeps it from being tried at once
  for (int k = 0; k < count; ++k) {
    const int dropped = weakest_wire(wires, weights, age, inputs, maturity);
    wires[dropped] = 0;
    begin(dropped, just_dropped);
  }
  for (int k = 0; k < count; ++k) {
    const float u = uniform_at(*play.at(op.seed, run), Stream::tried_wires, static_cast<uint32_t>(g.key),
                               static_cast<uint64_t>(*play.at(op.step, run)), static_cast<uint32_t>(first + k));
    int skip = static_cast<int>(u * static_cast<float>(absent - k)), tried = 0;
    if (skip >= absent - k) skip = absent - k - 1;
    while (wires[tried] != 0 || age[tried] == just_dropped || skip-- > 0) ++tried;
    wires[tried] = 1;
    begin(tried, 0);
  }
  for (int i = 0; i < inputs && count > 0; ++i)
    if (age[i] == just_dropped) age[i] = 0;
}

}  // namespace klopf
