#include "core/shuffle.hpp"

#include <algorithm>
#include <array>

#include "klopf/error.hpp"
#include "klopf/learner.hpp"
#include "klopf/philox.hpp"

namespace klopf {
namespace {

constexpr int64_t few = 2000;  // for which comparing is as fast

// By the keys in the upper half, eleven bits at a time; stable, so that the index below need not be looked at. Returns where they are.
uint64_t* sort_by_digits(uint64_t* keys, uint64_t* other, int64_t count) {
  constexpr int digit = 11;
  for (int shift = 32; shift < 64; shift += digit) {
    std::array<uint32_t, (1 << digit) + 1> starts{};
    const auto of = [&](uint64_t key) { return (key >> shift) & ((1 << digit) - 1); };
    for (int64_t i = 0; i < count; ++i) ++starts[of(keys[i]) + 1];
    for (std::size_t i = 1; i < starts.size(); ++i) starts[i] += starts[i - 1];
    for (int64_t i = 0; i < count; ++i) other[starts[of(keys[i])]++] = keys[i];
    std::swap(keys, other);
  }
  return keys;
}

}  // namespace

void draw_order(uint64_t seed, uint32_t stream, int64_t step, int64_t count, uint64_t* keys, uint32_t* order) {
  for (int64_t i = 0; i < count; i += 4) {
    const Random4 r = random4(seed, Stream::shuffle, stream, static_cast<uint64_t>(step), static_cast<uint32_t>(i / 4));
    for (int64_t k = 0; k < 4 && i + k < count; ++k) keys[i + k] = (static_cast<uint64_t>(r.v[k]) << 32) | static_cast<uint64_t>(i + k);
  }
  if (count < few) std::sort(keys, keys + count);
  else keys = sort_by_digits(keys, keys + count, count);
  for (int64_t i = 0; i < count; ++i) order[i] = static_cast<uint32_t>(keys[i]);
}

std::vector<int64_t> permutation(uint64_t seed, uint32_t stream, int64_t step, int64_t count) {
  if (count < 0) throw Error("[permutation] n must not be negative, got " + std::to_string(count));
  if (stream >= 1u << 24) throw Error("[permutation] stream must be below 16777216, got " + std::to_string(stream));
  std::vector<uint64_t> keys(2 * static_cast<std::size_t>(count));
  std::vector<uint32_t> order(static_cast<std::size_t>(count));
  draw_order(seed, stream, step, count, keys.data(), order.data());
  return {order.begin(), order.end()};
}

}  // namespace klopf
