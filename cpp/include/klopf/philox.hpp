#pragma once
#include <stdint.h>

#include "klopf/portable.hpp"

// Counter-based random numbers: Philox4x32-10 (Salmon, Moraes, Dror and Shaw 2011). A number depends on (run seed, stream,
// place, step, index) alone, never on how many were drawn before, by whom, or on which device.
namespace klopf {

// What a number is for. Values are part of the reproducible behaviour: append, never renumber.
enum class Stream : uint32_t {
  initial_weights = 1,
  shuffle = 2,
  replacement = 3,
  perturbation = 4,
  random_utility = 5,
  replacement_count = 6,
  images = 7,
  actions = 8,
  curvature = 9,
  exploration = 10,
  dropout = 11,
  gradient_noise = 12,
  goal_perturbation = 13,
  wires = 14,
  new_wires = 15,
  tried_wires = 16,
};

struct Random4 {
  uint32_t v[4];
};

KLOPF_FN Random4 philox(uint64_t seed, uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3) {
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = 0xD2511F53ull * c0, p1 = 0xCD9E8D57ull * c2;
    const uint32_t n0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0, n2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c0 = n0;
    c1 = static_cast<uint32_t>(p1);
    c2 = n2;
    c3 = static_cast<uint32_t>(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// Four numbers of one (seed, stream, place, step); `place` tells tensors, layers or classes apart (below 2^24).
KLOPF_FN Random4 random4(uint64_t seed, Stream stream, uint32_t place, uint64_t step, uint32_t index) {
  return philox(seed, index, (static_cast<uint32_t>(stream) << 24) | place, static_cast<uint32_t>(step), static_cast<uint32_t>(step >> 32));
}

// Uniform in (0, 1): 24 bits, never 0 and never 1.
KLOPF_FN float uniform(uint32_t bits) { return (static_cast<float>(bits >> 8) + 0.5f) * (1.0f / 16777216.0f); }

// The index-th uniform number of (seed, stream, place, step): one of four of a block.
KLOPF_FN float uniform_at(uint64_t seed, Stream stream, uint32_t place, uint64_t step, uint32_t index) {
  const Random4 r = random4(seed, stream, place, step, index >> 2);
  return uniform(r.v[index & 3]);
}

}  // namespace klopf
