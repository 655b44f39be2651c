// What is done once an epoch, and once a batch for it.
#include "common.hpp"
#include "kernels.hpp"
#include "klopf/philox.hpp"

namespace klopf::cuda {
namespace {

// Bitonic sorting (Batcher 1968): stages k = 2, 4, ... up to all, each of steps j = k / 2, k / 4, ... 1 that order numbers j apart.
constexpr int64_t block_size = 2048;  // of what is sorted in shared memory
constexpr int sort_threads = 512;

__device__ void order_pair(uint64_t* keys, int64_t j, int64_t pair, int64_t first, int64_t k) {
  const int64_t within = pair & (j - 1), i = 2 * (pair - within) + within;
  const bool ascending = ((first + i) & k) == 0;
  const uint64_t a = keys[i], b = keys[i + j];
  if ((a > b) != ascending) return;
  keys[i] = b;
  keys[i + j] = a;
}

// Stages from `first` to `last`, of each only the steps within a block.
__global__ void sort_block_kernel(BeginEpoch op, Play play, int64_t size, int64_t first, int64_t last) {
  __shared__ uint64_t keys[block_size];
  const int64_t at = blockIdx.x * block_size, count = size < block_size ? size : block_size;
  uint64_t* all = play.at(op.keys, static_cast<int>(blockIdx.z)) + at;
  for (int64_t i = threadIdx.x; i < count; i += sort_threads) keys[i] = all[i];
  __syncthreads();
  for (int64_t k = first; k <= last; k *= 2)
    for (int64_t j = (k < count ? k : count) / 2; j > 0; j /= 2) {
      for (int64_t pair = threadIdx.x; pair < count / 2; pair += sort_threads) order_pair(keys, j, pair, at, k);
      __syncthreads();
    }
  for (int64_t i = threadIdx.x; i < count; i += sort_threads) all[i] = keys[i];
}

void sort(const Queue& queue, const BeginEpoch& op, const Play& play, int64_t size) {
  const auto in_blocks = [&](int64_t first, int64_t last) {
    launch(queue.stream, sort_block_kernel, dim3(blocks_for(size, block_size), 1, static_cast<unsigned>(play.runs)), dim3(sort_threads), op,
           play, size, first, last);
  };
  in_blocks(2, size < block_size ? size : block_size);
  for (int64_t k = 2 * block_size; k <= size; k *= 2) {
    for (int64_t j = k / 2; j >= block_size; j /= 2)
      for_each(queue, play, size / 2,
               [op, play, j, k] __device__(int run, int64_t pair) { order_pair(play.at(op.keys, run), j, pair, 0, k); });
    in_blocks(k, k);
  }
}

}  // namespace

void begin_epoch(const Queue& queue, const BeginEpoch& op, const Play& play) {
  for_each(queue, play, 1, [op, play] __device__(int run, int64_t) {
    *play.at(op.sums.loss, run) = 0;
    *play.at(op.sums.correct, run) = *play.at(op.sums.done, run) = 0;
  });
  if (op.samples == 0) return;
  int64_t size = 1;
  while (size < op.samples) size *= 2;
  for_each(queue, play, (size + 3) / 4, [op, play, size] __device__(int run, int64_t four) {
    const Random4 r =
        random4(*play.at(op.seed, run), Stream::shuffle, 0, static_cast<uint64_t>(*play.at(op.epoch, run)), static_cast<uint32_t>(four));
    for (int64_t i = 4 * four; i < 4 * four + 4 && i < size; ++i)
      play.at(op.keys, run)[i] = i < op.samples ? (static_cast<uint64_t>(r.v[i % 4]) << 32) | static_cast<uint64_t>(i) : ~uint64_t{0};
  });
  if (size > 1) sort(queue, op, play, size);
  for_each(queue, play, op.samples,
           [op, play] __device__(int run, int64_t i) { play.at(op.order, run)[i] = static_cast<uint32_t>(play.at(op.keys, run)[i]); });
}

void tally(const Queue& queue, const Tally& op, const Play& play) {
  for_each(queue, play, 1, [op, play] __device__(int run, int64_t) {
    const int32_t correct = *play.at(op.correct, run);
    *play.at(op.sums.done, run) += play.batch.total;
    if (correct < 0) return;  // did not take part
    *play.at(op.sums.loss, run) += *play.at(op.loss, run) * play.batch.total;
    *play.at(op.sums.correct, run) += correct;
  });
}

void end_epoch(const Queue& queue, const EndEpoch& op, const Play& play) {
  for_each(queue, play, 1, [op, play] __device__(int run, int64_t) {
    if (op.epoch.present()) ++*play.at(op.epoch, run);
    const bool alive = *play.at(op.alive, run);
    const double samples = static_cast<double>(*play.at(op.sums.done, run));
    play.at(op.loss, run)[op.index] = alive ? *play.at(op.sums.loss, run) / samples : nan("");
    play.at(op.accuracy, run)[op.index] =
        alive && op.classification ? static_cast<double>(*play.at(op.sums.correct, run)) / samples : nan("");
  });
}

}  // namespace klopf::cuda
