#pragma once
#include <string.h>

#include "klopf/operations.hpp"

// What an optimizer keeps for a unit that starts anew. `run` is 0 where a play is of one run.
namespace klopf {

KLOPF_FN void begin_anew(const WeightState& state, const Play& play, int run, int64_t place) {
  if (!state.values.present()) return;
  uint32_t word = 0;
  if (state.birth.present()) {
    const float value = static_cast<float>(*play.at(state.birth, run));
    memcpy(&word, &value, 4);
  }
  play.at(state.values, run)[place] = word;
}

// Age and statistics of a unit that begins.
KLOPF_FN void forget_unit(const Units& group, const Play& play, int run, int unit) {
  play.at(group.age, run)[unit] = 0;
  if (group.promoted.present()) play.at(group.promoted, run)[unit] = 0;
  const Ref<float> statistics[] = {group.mean_trace, group.mean_activity, group.utility_trace, group.utility, group.variance};
  for (const Ref<float>& statistic : statistics)
    if (statistic.present()) play.at(statistic, run)[unit] = 0;
}

}  // namespace klopf
