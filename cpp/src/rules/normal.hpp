#pragma once
#include <math.h>
#include <string.h>

#include "klopf/philox.hpp"

// Two independent N(0, 1) numbers from 48 random bits (Box and Muller 1958), in plain float arithmetic without branches or
// library calls, so that it vectorises and gives the same numbers wherever float addition and multiplication do.
namespace klopf {

struct Normal2 {
  float first, second;
};

// log(u) for u in (0, 1): u = 2^e m with m in [sqrt(1/2), sqrt(2)); log m = 2 atanh(s), s = (m - 1) / (m + 1). Error below 2e-7.
KLOPF_FN float log_of_uniform(float u) {
  uint32_t bits;
  memcpy(&bits, &u, 4);
  const uint32_t shifted = bits - 0x3F3504F3u;
  const int32_t e = static_cast<int32_t>(shifted) >> 23;
  const uint32_t mantissa = (shifted & 0x007FFFFFu) + 0x3F3504F3u;
  float m;
  memcpy(&m, &mantissa, 4);
  const float s = (m - 1) / (m + 1), z = s * s;
  const float series = 2 * s * (1 + z * (0.33333333f + z * (0.2f + z * (0.14285715f + z * 0.11111111f))));
  return static_cast<float>(e) * 0.69314718f + series;
}

// cos and sin of 2 pi t for t in (0, 1), by the quarter turn nearest to t.
KLOPF_FN Normal2 on_circle(float t) {
  const int32_t quarter = static_cast<int32_t>(t * 4 + 0.5f);
  const float x = (t * 4 - static_cast<float>(quarter)) * 1.57079633f, z = x * x;
  const float sine = x * (1 + z * (-0.16666667f + z * (8.3333333e-3f + z * (-1.9841270e-4f + z * 2.7557319e-6f))));
  const float cosine = 1 + z * (-0.5f + z * (4.1666667e-2f + z * (-1.3888889e-3f + z * (2.4801587e-5f - z * 2.7557319e-7f))));
  const bool swap = quarter & 1;
  const float c = swap ? sine : cosine, s = swap ? cosine : sine;
  return {((quarter + 1) & 2) ? -c : c, (quarter & 2) ? -s : s};
}

KLOPF_FN Normal2 normal2(uint32_t bits1, uint32_t bits2) {
  const float radius = sqrtf(-2 * log_of_uniform(uniform(bits1)));
  const Normal2 direction = on_circle(uniform(bits2));
  return {radius * direction.first, radius * direction.second};
}

// The index-th normal number of (seed, stream, place, step). Of each 64 in a row, those a quarter apart share a block.
KLOPF_FN float normal_at(uint64_t seed, Stream stream, uint32_t place, uint64_t step, uint32_t index) {
  const uint32_t within = index % 64, half = within / 32 * 2;
  const Random4 r = random4(seed, stream, place, step, index / 64 * 16 + within % 16);
  const Normal2 both = normal2(r.v[half], r.v[half + 1]);
  return within / 16 % 2 ? both.second : both.first;
}

}  // namespace klopf
