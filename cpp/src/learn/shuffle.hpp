#pragma once
#include <cstdint>
#include <vector>

namespace klopf {

// The order of an epoch's samples: a stable argsort of counter-based 32-bit keys.
struct Shuffle {
  std::vector<uint32_t> order;
  explicit Shuffle(int64_t count);
  void draw(uint64_t seed, uint32_t stream, int64_t step);

 private:
  std::vector<uint64_t> keys_, sorted_;  // key, then index
};

}  // namespace klopf
