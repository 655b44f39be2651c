#pragma once
#include <stdint.h>

#include "runtime.hpp"

namespace klopf::cuda {

// Division of 0 <= n < 2^31 by a number known beforehand, by a multiplication (Granlund and Montgomery 1994).
class Divider {
 public:
  explicit Divider(int divisor) : divisor_(divisor) {
    while ((int64_t{1} << shift_) < divisor) ++shift_;
    multiplier_ =
        static_cast<uint32_t>((((uint64_t{1} << shift_) - static_cast<uint64_t>(divisor)) << 32) / static_cast<uint64_t>(divisor) + 1);
  }
  __device__ int quotient(int n) const {
    const uint32_t u = static_cast<uint32_t>(n);
    return static_cast<int>((static_cast<uint32_t>(static_cast<uint64_t>(multiplier_) * u >> 32) + u) >> shift_);
  }
  __device__ int remainder(int n, int quotient) const { return n - quotient * divisor_; }

 private:
  int divisor_;
  uint32_t multiplier_ = 0, shift_ = 0;
};

}  // namespace klopf::cuda
