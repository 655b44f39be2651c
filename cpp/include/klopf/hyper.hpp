#pragma once
#include <initializer_list>
#include <utility>
#include <vector>

namespace klopf {

// A numeric hyper-parameter: one value for all runs, or one for each; or none, where it may be left out.
struct PerRun {
  std::vector<double> values;
  PerRun(double value = 0) : values{value} {}
  PerRun(std::vector<double> each) : values(std::move(each)) {}
  PerRun(std::initializer_list<double> each) : values(each) {}
  static PerRun none() { return PerRun(std::vector<double>{}); }
  bool given() const { return !values.empty(); }
  double operator[](int run) const { return values.size() == 1 ? values[0] : values[static_cast<std::size_t>(run)]; }
  bool operator==(const PerRun&) const = default;
};

}  // namespace klopf
