// Policies: losses of actions, and drawing them. Few numbers a sample, so one version for all levels.
#include "cpu/units.hpp"
#include "rules/policies.hpp"

namespace klopf::cpu {

void policy_loss(const PolicyLoss& op, const Play& play) {
  const Batch& batch = play.batch;
  const double per_sample = 1.0 / batch.total, clip = *play.at(op.clip), entropy_weight = *play.at(op.entropy);
  const float *output = play.at(op.output), *log_std = play.at(op.log_std);
  float *grad = play.at(op.grad_output), *grad_log_std = play.at(op.grad_log_std);
  double *by_log_probability = play.at(op.by_log_probability), *inverse_std = play.at(op.inverse_std);
  fill_inverse_std(op.distribution, log_std, op.outputs, inverse_std);
  const int target_size = policy_target_size(op.distribution, op.outputs);
  const auto target_of = [&](int b) {
    return batch.targets + (batch.order ? batch.order[batch.first + b] : batch.first + b) * target_size;
  };
  double sum = 0;
  int clipped = 0;
  for (int b = 0; b < batch.count; ++b, output += op.outputs) {
    const Surrogate found = policy_sample(op, output, log_std, inverse_std, target_of(b), grad, clip, entropy_weight, per_sample);
    sum += found.loss;
    clipped += found.clipped;
    by_log_probability[b] = found.by_log_probability * per_sample;
    if (grad) grad += op.outputs;
  }
  *play.at(op.loss) = sum * per_sample;
  *play.at(op.clipped) = clipped;
  if (!grad || op.distribution != Distribution::gaussian) return;
  output = play.at(op.output);
  for (int o = 0; o < op.outputs; ++o) {
    double by_log_std = 0;
    for (int b = 0; b < batch.count; ++b) {
      const double z = z_score(target_of(b)[o], output[static_cast<int64_t>(b) * op.outputs + o], inverse_std[o]);
      by_log_std += by_log_probability[b] * (z * z - 1);
    }
    grad_log_std[o] = static_cast<float>(by_log_std - entropy_weight * batch.count * per_sample);
  }
}

void draw_action(const DrawAction& op, const Play& play) {
  draw(op, play.at(op.output), play.at(op.log_std), play.at(op.inverse_std), *play.at(op.seed), play.at(op.action));
}

}  // namespace klopf::cpu
