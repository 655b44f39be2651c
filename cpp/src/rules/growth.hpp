#pragma once
#include <math.h>

#include "klopf/operations.hpp"

// Units that live, and when one is added. `run` is 0 where a play is of one run.
namespace klopf {

KLOPF_FN bool lives(const Units& group, const Play& play, int run, int unit) {
  const uint8_t* vacant = play.at(group.vacant, run);
  return !(vacant && vacant[unit]);
}
KLOPF_FN int living(const Units& group, const Play& play, int run) {
  const uint8_t* vacant = play.at(group.vacant, run);
  int count = group.units;
  for (int u = 0; u < group.units && vacant; ++u) count -= vacant[u];
  return count;
}

// Every `period` steps: whether the running error is above what is tolerated, and has not fallen enough since the last look.
KLOPF_FN bool error_stays(const UnitGrow& op, const Play& play, int run) {
  const double now = *play.at(op.error, run), decay = *play.at(op.error_decay, run);
  double &running = *play.at(op.running_error, run), &last = *play.at(op.last_error, run);
  int64_t& steps = *play.at(op.looks, run);
  steps += 1;
  running = decay * running + (1 - decay) * (op.squared ? now * now : now);
  const int64_t period = static_cast<int64_t>(*play.at(op.period, run));
  if (period == 0 || steps % period != 0) return false;
  const double error = running / (1 - pow(decay, static_cast<double>(steps)));
  const bool stays = error > *play.at(op.tolerated_error, run) && !(error < (1 - *play.at(op.progress, run)) * last);
  last = error;
  return stays;
}

// The first place where a unit may begin to live, or -1.
KLOPF_FN int place_to_grow(const UnitGrow& op, const Play& play, int run) {
  const uint8_t *backbone = play.at(op.backbone, run), *sources_vacant = play.at(op.sources_vacant, run);
  if (sources_vacant) {  // a unit that hears nobody learns nothing
    int heard = 0;
    for (int i = 0; i < op.sources; ++i) heard += !sources_vacant[i];
    if (heard == 0) return -1;
  }
  int fringe = 0, place = -1;
  for (int u = op.group.units - 1; u >= 0; --u) {
    if (lives(op.group, play, run, u)) fringe += !backbone[u];
    else place = u;
  }
  return fringe < *play.at(op.candidates, run) ? place : -1;
}

}  // namespace klopf
