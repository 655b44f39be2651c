#include "klopf/normalise.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace klopf {
namespace {

constexpr double epsilon = 1e-8;

}  // namespace

RunningMoments::RunningMoments(int runs, int64_t size)
    : size_(size), count_(static_cast<std::size_t>(runs)), mean_(static_cast<std::size_t>(runs * size)), squares_(mean_.size()) {}

void RunningMoments::update(int run, const double* x) {
  const double n = ++count_[static_cast<std::size_t>(run)];
  for (int64_t i = 0; i < size_; ++i) {
    double& mean = mean_[place(run, i)];
    const double before = x[i] - mean;
    mean += before / n;
    squares_[place(run, i)] += before * (x[i] - mean);
  }
}

double RunningMoments::variance(int run, int64_t i) const {
  const double n = count_[static_cast<std::size_t>(run)];
  return n < 2 ? 1 : squares_[place(run, i)] / (n - 1);
}

void RunningMoments::normalise(int run, const double* x, float* out, bool keep) {
  const double count = count_[static_cast<std::size_t>(run)];
  const auto mean = mean_.begin() + run * size_, squares = squares_.begin() + run * size_;
  const std::vector<double> mean_before(mean, mean + size_), squares_before(squares, squares + size_);
  update(run, x);
  for (int64_t i = 0; i < size_; ++i) out[i] = static_cast<float>((x[i] - mean_[place(run, i)]) / std::sqrt(variance(run, i) + epsilon));
  if (keep) return;
  count_[static_cast<std::size_t>(run)] = count;
  std::copy(mean_before.begin(), mean_before.end(), mean);
  std::copy(squares_before.begin(), squares_before.end(), squares);
}

std::vector<Array> RunningMoments::state(const std::string& prefix) const {
  if (!present()) return {};
  const int64_t runs = static_cast<int64_t>(count_.size());
  return {array_of(prefix + "count", {runs}, count_), array_of(prefix + "mean", {runs, size_}, mean_),
          array_of(prefix + "squares", {runs, size_}, squares_)};
}

void RunningMoments::load(const std::string& prefix, const Array& array) {
  for (const auto& [name, values] : {std::pair{"count", &count_}, {"mean", &mean_}, {"squares", &squares_}})
    if (array.name == prefix + name) std::memcpy(values->data(), array.data.data(), array.data.size());
}

double RewardScale::operator()(int run, double reward, bool ended, double discount) {
  double& trace = trace_[static_cast<std::size_t>(run)];
  trace = (ended && spills_ ? 0 : discount * trace) + reward;
  moments_.update(run, &trace);
  if (ended && !spills_) trace = 0;
  return reward / std::sqrt(moments_.variance(run, 0) + epsilon);
}

std::vector<Array> RewardScale::state(const std::string& prefix) const {
  std::vector<Array> all = moments_.state(prefix);
  if (present()) all.push_back(array_of(prefix + "trace", {static_cast<int64_t>(trace_.size())}, trace_));
  return all;
}

void RewardScale::load(const std::string& prefix, const Array& array) {
  moments_.load(prefix, array);
  if (array.name == prefix + "trace") std::memcpy(trace_.data(), array.data.data(), array.data.size());
}

}  // namespace klopf
