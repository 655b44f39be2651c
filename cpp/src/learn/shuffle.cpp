#include "learn/shuffle.hpp"

#include <algorithm>
#include <array>

#include "klopf/error.hpp"
#include "klopf/learner.hpp"
#include "klopf/philox.hpp"

namespace klopf {
namespace {

// By the keys in the upper half, eleven bits at a time; stable, so that the index below need not be looked at.
void sort_by_digits(std::vector<uint64_t>& keys, std::vector<uint64_t>& other) {
  constexpr int digit = 11;
  for (int shift = 32; shift < 64; shift += digit) {
    std::array<uint32_t, (1 << digit) + 1> starts{};
    const auto of = [&](uint64_t key) { return (key >> shift) & ((1 << digit) - 1); };
    for (const uint64_t key : keys) ++starts[of(key) + 1];
    for (std::size_t i = 1; i < starts.size(); ++i) starts[i] += starts[i - 1];
    for (const uint64_t key : keys) other[starts[of(key)]++] = key;
    keys.swap(other);
  }
}

}  // namespace

constexpr std::size_t few = 2000;  // for which comparing is as fast

Shuffle::Shuffle(int64_t count)
    : order(static_cast<std::size_t>(count)), keys_(order.size()), sorted_(order.size() < few ? 0 : order.size()) {}

void Shuffle::draw(uint64_t seed, uint32_t stream, int64_t step) {
  const std::size_t n = order.size();
  for (std::size_t i = 0; i < n; i += 4) {
    const Random4 r = random4(seed, Stream::shuffle, stream, static_cast<uint64_t>(step), static_cast<uint32_t>(i / 4));
    for (std::size_t k = 0; k < 4 && i + k < n; ++k) keys_[i + k] = (static_cast<uint64_t>(r.v[k]) << 32) | (i + k);
  }
  if (n < few) std::sort(keys_.begin(), keys_.end());
  else sort_by_digits(keys_, sorted_);
  for (std::size_t i = 0; i < n; ++i) order[i] = static_cast<uint32_t>(keys_[i]);
}

std::vector<int64_t> permutation(uint64_t seed, uint32_t stream, int64_t step, int64_t count) {
  if (count < 0) throw Error("[permutation] n must not be negative, got " + std::to_string(count));
  if (stream >= 1u << 24) throw Error("[permutation] stream must be below 16777216, got " + std::to_string(stream));
  Shuffle shuffle(count);
  shuffle.draw(seed, stream, step);
  return {shuffle.order.begin(), shuffle.order.end()};
}

}  // namespace klopf
