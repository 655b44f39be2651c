// Bounds on steps, the curvature of losses, SwiftTD. Few numbers, so one version for all levels.
#include <cmath>

#include "cpu/units.hpp"
#include "rules/curvature.hpp"
#include "rules/owners.hpp"
#include "rules/swift_td.hpp"

namespace klopf::cpu {

void curvature_probe(const CurvatureProbe& op, const Play& play) {
  const Batch& batch = play.batch;
  const float* output = play.at(op.output);
  float* probe = play.at(op.probe);
  const double scale = std::sqrt(1.0 / batch.total);
  for (int b = 0; b < batch.count; ++b, output += op.outputs, probe += op.outputs)
    curvature_probe(op.kind, output, op.outputs, *play.at(op.seed), *play.at(op.step), batch.first + b, scale, probe);
}

void swift_step(const SwiftStep& op, const Play& play) {
  const SwiftArrays arrays = swift_arrays(op, play, 0);
  SwiftSums sums{};
  for (int64_t i = 0; i < op.count; ++i) swift_measure(arrays, i, sums);
  for (int64_t i = 0; i < op.count; ++i) {
    swift_apply(arrays, i, sums);
    if (!std::isfinite(arrays.w[i])) *play.at(op.all.alive) = 0;
  }
}

void bound_steps(const BoundSteps& op, const Play& play) {
  for (int k = 0; k < (op.each_row ? op.rows : 1); ++k) bound_rows(op, play, 0, k);
}

}  // namespace klopf::cpu
