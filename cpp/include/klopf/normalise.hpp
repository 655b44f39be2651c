#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "klopf/layout.hpp"

namespace klopf {

// Running mean and variance of `size` numbers in each of R runs, in float64 (Welford 1962). The variance divides by n - 1, and is 1 while
// n < 2.
class RunningMoments {
 public:
  RunningMoments() = default;
  RunningMoments(int runs, int64_t size);
  bool present() const { return !count_.empty(); }
  void update(int run, const double* x);
  double variance(int run, int64_t i) const;
  // (x - mean) / sqrt(variance + 1e-8), with x counted; `keep`: from now on.
  void normalise(int run, const double* x, float* out, bool keep);

  std::vector<Array> state(const std::string& prefix) const;
  void load(const std::string& prefix, const Array& array);  // one of them, of the right size, or another's

 private:
  std::size_t place(int run, int64_t i) const { return static_cast<std::size_t>(run * size_ + i); }
  int64_t size_ = 0;
  std::vector<double> count_, mean_, squares_;  // [R], [R, size] twice
};

// Rewards over the deviation of their discounted sum u <- gamma u + r of an episode. spills: u <- gamma (1 - ended) u + r, as published,
// so that the reward that ends an episode counts in the next one's sum and not in its own.
class RewardScale {
 public:
  RewardScale() = default;
  explicit RewardScale(int runs, bool spills = true) : moments_(runs, 1), trace_(static_cast<std::size_t>(runs)), spills_(spills) {}
  bool present() const { return moments_.present(); }
  void begin() { trace_.assign(trace_.size(), 0); }  // new episodes
  double operator()(int run, double reward, bool ended, double discount);

  std::vector<Array> state(const std::string& prefix) const;
  void load(const std::string& prefix, const Array& array);

 private:
  RunningMoments moments_;
  std::vector<double> trace_;
  bool spills_ = true;
};

}  // namespace klopf
