#pragma once
#include "klopf/operations.hpp"
#include "klopf/philox.hpp"

// New weights: numbers that depend on (run seed, stream, place, step, row, column) alone.
namespace klopf {

KLOPF_FN float initial_uniform(uint64_t seed, Stream stream, int place, uint64_t step, int row, int columns, int column, int use) {
  const uint64_t index =
      (static_cast<uint64_t>(row) * static_cast<uint64_t>(columns) + static_cast<uint64_t>(column)) * 2 + static_cast<uint64_t>(use);
  return uniform_at(seed, stream, static_cast<uint32_t>(place), step, static_cast<uint32_t>(index));
}

// One of a unit's `columns` incoming weights. Sparse (Elsayed et al. 2024): exactly ceil(0.9 columns) of them are zero, those with the
// lowest keys.
KLOPF_FN float initial_weight(const InitialDistribution& initial, uint64_t seed, Stream stream, int place, uint64_t step, int row,
                              int columns, int column) {
  if (initial.kind == Initial::sparse) {
    const int zeros = (9 * columns + 9) / 10;
    const float key = initial_uniform(seed, stream, place, step, row, columns, column, 1);
    int rank = 0;
    for (int k = 0; k < columns; ++k) {
      const float other = initial_uniform(seed, stream, place, step, row, columns, k, 1);
      rank += other < key || (other == key && k < column);
    }
    if (rank < zeros) return 0;
  }
  return (2 * initial_uniform(seed, stream, place, step, row, columns, column, 0) - 1) * initial.weight_bound;
}

KLOPF_FN float initial_bias(const InitialDistribution& initial, uint64_t seed, int place, uint64_t draw, int row) {
  const float u = uniform_at(seed, Stream::initial_weights, static_cast<uint32_t>(place) + 0x800000u, draw, static_cast<uint32_t>(row));
  return initial.bias_bound == 0 ? 0.0f : (2 * u - 1) * initial.bias_bound;
}

}  // namespace klopf
