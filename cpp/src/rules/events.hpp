#pragma once
#include "klopf/operations.hpp"

namespace klopf {

// Writes down which units of a group go, in their order.
KLOPF_FN void log_events_of(const LogEvents& op, const Play& play, int run) {
  const uint8_t *replaced = play.at(op.replaced, run), *vacant = play.at(op.vacant, run);
  int64_t& count = *play.at(op.log.count, run);
  for (int u = 0; u < op.units; ++u) {
    if (!replaced[u]) continue;
    const int64_t place = count++ % op.log.capacity;
    play.at(op.log.step, run)[place] = *play.at(op.step, run);
    play.at(op.log.group, run)[place] = op.group;
    play.at(op.log.unit, run)[place] = u;
    const bool added = vacant && vacant[u];  // where none lived
    play.at(op.log.age, run)[place] = added ? 0 : play.at(op.age, run)[u];
    play.at(op.log.utility, run)[place] = added ? 0 : play.at(op.utility, run)[u];
    play.at(op.log.cause, run)[place] = op.cause;
  }
}

}  // namespace klopf
