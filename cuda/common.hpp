#pragma once
#include <math.h>
#include <stdint.h>

#include "klopf/operations.hpp"
#include "runtime.hpp"

// Every kernel has the runs in blockIdx.z. What changes a run's state looks first whether the run still learns.
namespace klopf::cuda {

constexpr int block_threads = 256;

inline unsigned blocks_for(int64_t count, int64_t each = block_threads) { return static_cast<unsigned>((count + each - 1) / each); }

// Places in a batch's arrays of one run are numbers of 32 bits.
inline void expect_32_bits(int64_t count) {
  if (count > INT32_MAX)
    throw Error("[cuda] a layer must have less than 2147483648 inputs, outputs and weights a batch; smaller batches have less");
}

__device__ inline int64_t thread_index() { return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; }
__device__ inline bool learns(const Play& play, int run) {
  const int32_t* active = play.at(play.active, run);
  return !active || *active;
}

// work(run, i) for i in [0, count), a thread each, in every run.
template <class Work>
__global__ void for_each_kernel(Work work, int64_t count) {
  const int64_t i = thread_index();
  if (i < count) work(static_cast<int>(blockIdx.z), i);
}
template <class Work>
void for_each(const Queue& queue, const Play& play, int64_t count, const Work& work) {
  if (count == 0) return;
  launch_apart(queue.stream, for_each_kernel<Work>, dim3(blocks_for(count), 1, static_cast<unsigned>(play.runs)), dim3(block_threads), work,
               count);
}

// Where the sample at `place` of a batch lies in a run's data.
__device__ inline int64_t sample_at(const Play& play, int run, int place) {
  const Batch& batch = play.batch;
  const int64_t at = (batch.done.present() ? *play.at(batch.done, run) : 0) + batch.first + place;
  return batch.order ? batch.order[run * batch.order_run + at] : at;
}

}  // namespace klopf::cuda
