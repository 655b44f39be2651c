#include "learn/check.hpp"

#include <cstdint>

#include "klopf/error.hpp"

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

void check(const char* where, const Network& network, LossKind loss, const Samples& samples) {
  check_samples(where, samples);
  const bool labels = loss == LossKind::cross_entropy;
  if (labels ? samples.labels == nullptr : samples.targets == nullptr)
    throw Error("[" + std::string(where) + "] " + (labels ? "labels" : "targets") + " must be given for " +
                loss_names()[static_cast<std::size_t>(loss)] + ", got none");
  if (labels)
    check_labels(where, samples.labels, samples.targets_per_run ? network.runs() * samples.count : samples.count, network.outputs());
}

void check(const RunOptions& options) {
  if (options.batch_size < 1) throw Error("[learner.run] batch_size must be at least 1, got " + std::to_string(options.batch_size));
  if (options.epochs < 0) throw Error("[learner.run] epochs must not be negative, got " + std::to_string(options.epochs));
  if (options.epochs > INT32_MAX) throw Error("[learner.run] epochs must be at most 2147483647, got " + std::to_string(options.epochs));
}

}  // namespace klopf
