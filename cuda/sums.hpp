#pragma once
#include "runtime.hpp"

namespace klopf::cuda {

// Of a block that works for one unit's goal.
constexpr int goal_threads = 128;

// The sum of what such a block's threads have, in their order; the same in all of them.
__device__ inline float sum_of_block(float part) {
  __shared__ float parts[goal_threads];
  __syncthreads();
  parts[threadIdx.x] = part;
  __syncthreads();
  float sum = 0;
  for (int i = 0; i < goal_threads; ++i) sum += parts[i];
  return sum;
}

}  // namespace klopf::cuda
