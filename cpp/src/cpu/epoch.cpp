// What is done once an epoch, and once a batch for it.
#include <limits>

#include "core/shuffle.hpp"
#include "cpu/units.hpp"

namespace klopf::cpu {

void begin_epoch(const BeginEpoch& op, const Play& play) {
  *play.at(op.sums.loss) = 0;
  *play.at(op.sums.correct) = *play.at(op.sums.done) = 0;
  if (op.samples && *play.at(op.alive))
    draw_order(*play.at(op.seed), 0, *play.at(op.epoch), op.samples, play.at(op.keys), play.at(op.order));
}

void tally(const Tally& op, const Play& play) {
  *play.at(op.sums.loss) += *play.at(op.loss) * play.batch.total;
  *play.at(op.sums.correct) += *play.at(op.correct);
  *play.at(op.sums.done) += play.batch.total;
}

void end_epoch(const EndEpoch& op, const Play& play) {
  if (op.epoch.present()) ++*play.at(op.epoch);
  const bool alive = *play.at(op.alive);
  const double nan = std::numeric_limits<double>::quiet_NaN(), samples = static_cast<double>(*play.at(op.sums.done));
  play.at(op.loss)[op.index] = alive ? *play.at(op.sums.loss) / samples : nan;
  play.at(op.accuracy)[op.index] = alive && op.classification ? static_cast<double>(*play.at(op.sums.correct)) / samples : nan;
}

}  // namespace klopf::cpu
