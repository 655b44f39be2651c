#pragma once
#include <cstdint>

namespace klopf {

// The order of an epoch's samples: a stable argsort of counter-based 32-bit keys. keys: room for 2 count.
void draw_order(uint64_t seed, uint32_t stream, int64_t step, int64_t count, uint64_t* keys, uint32_t* order);

}  // namespace klopf
