#include "nn/check.hpp"

#include <cstdint>

#include "klopf/error.hpp"

namespace klopf {

void check_samples(const char* where, const Samples& samples) {
  const auto at = [&] { return "[" + std::string(where) + "] "; };
  if (samples.x == nullptr) throw Error(at() + "x must be given, got none");
  if (samples.count < 1 || samples.count > INT32_MAX)  // positions in a batch have 32 bits
    throw Error(at() + "x must have from 1 to 2147483647 samples, got " + std::to_string(samples.count));
}

}  // namespace klopf
