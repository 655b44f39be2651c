#include "learn/check.hpp"

#include <cmath>
#include <cstdint>

#include "klopf/error.hpp"
#include "learn/record.hpp"

namespace klopf {

template <class T>
void check_labels(const char* where, const T* labels, int64_t count, int64_t outputs) {
  for (int64_t i = 0; i < count; ++i)
    if (labels[i] < 0 || labels[i] >= outputs)
      throw Error("[" + std::string(where) + "] y must be labels from 0 to " + std::to_string(outputs - 1) + ", got " +
                  std::to_string(labels[i]));
}
template void check_labels(const char* where, const int32_t* labels, int64_t count, int64_t outputs);
template void check_labels(const char* where, const int64_t* labels, int64_t count, int64_t outputs);

void check(const char* where, Learner& learner, const Samples& samples) {
  check_samples(where, samples);
  const bool labels = learner.classification();
  if (labels ? samples.labels == nullptr : samples.targets == nullptr)
    throw Error("[" + std::string(where) + "] " + (labels ? "labels" : "targets") + " must be given for " + learner.loss_name() +
                ", got none");
  const Network& network = learner.network();
  if (!labels && network.target_size(samples) != learner.target_size())
    throw Error("[" + std::string(where) + "] targets must have " + std::to_string(learner.target_size()) + " numbers, got " +
                std::to_string(network.target_size(samples)));
  const int64_t count = samples.targets_per_run ? network.runs() * samples.count : samples.count, size = learner.target_size();
  if (labels) return check_labels(where, samples.labels, count, network.outputs());
  if (!learner.chooses()) return;
  for (int64_t i = 0; i < count; ++i) {
    const float action = samples.targets[i * size];
    if (!(action >= 0 && action < static_cast<float>(network.outputs())) || action != std::floor(action))
      throw Error("[" + std::string(where) + "] actions must be whole numbers from 0 to " + std::to_string(network.outputs() - 1) +
                  ", got " + number_text(action));
  }
}

void check(const Network& network, const LossSpec& loss, const Optimizer& optimizer) {
  if (needs_curvature(optimizer) && network.normalises_batches())
    throw Error("[learner] IDBD and Autostep need the curvature of each sample's loss, and BatchNorm makes samples depend on each other");
  if (const std::string* name = std::get_if<std::string>(&loss)) {
    static_cast<void>(choice("learner", "loss", *name, loss_names()));
  } else {
    const bool gaussian = distribution_of(std::get<ClippedPolicy>(loss)) == Distribution::gaussian;
    if (gaussian && !network.log_std().present()) throw Error("[learner] a Gaussian policy needs a network that ends with LogStd()");
    if (!gaussian && network.log_std().present())
      throw Error("[learner] a categorical policy must not end with LogStd(), which only a Gaussian one has");
    if (needs_curvature(optimizer)) throw Error("[learner] IDBD and Autostep need the curvature of the loss, and ClippedPolicy has none");
    return;
  }
  if (network.log_std().present()) throw Error("[learner] a network with LogStd() is a policy, and needs loss=ClippedPolicy()");
}

void check_batch(const char* where, const Network& network, int64_t count) {
  if (count < network.least_batch())
    throw Error("[" + std::string(where) + "] a batch must have at least " + std::to_string(network.least_batch()) +
                " samples for BatchNorm1d, got " + std::to_string(count));
}

void check(const RunOptions& options) {
  if (options.batch_size < 1) throw Error("[learner.run] batch_size must be at least 1, got " + std::to_string(options.batch_size));
  if (options.epochs < 0) throw Error("[learner.run] epochs must not be negative, got " + std::to_string(options.epochs));
  if (options.epochs > INT32_MAX) throw Error("[learner.run] epochs must be at most 2147483647, got " + std::to_string(options.epochs));
}

}  // namespace klopf
