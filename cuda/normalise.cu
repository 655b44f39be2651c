// Normalisation of samples or batches, and the gains and biases behind it.
#include "common.hpp"
#include "kernels.hpp"
#include "rules/running.hpp"

namespace klopf::cuda {
namespace {

// One block a sample: a thread takes every 128th number, and their sums are added in order.
constexpr int norm_threads = 128;
__device__ float sum_of_block(float own, float* sums) {
  const int thread = static_cast<int>(threadIdx.x);
  __syncthreads();
  sums[thread] = own;
  __syncthreads();
  float sum = 0;
  for (int k = 0; k < norm_threads; ++k) sum += sums[k];
  return sum;
}

__global__ void layer_norm_forward_kernel(LayerNormForward op, Play play) {
  const int run = static_cast<int>(blockIdx.z), b = static_cast<int>(blockIdx.x), thread = static_cast<int>(threadIdx.x);
  const float* x = play.at(op.input, run) + b * op.size;
  float* y = play.at(op.output, run) + b * op.size;
  __shared__ float sums[norm_threads];
  float own = 0;
  for (int64_t i = thread; i < op.size; i += norm_threads) own += x[i];
  const float mean = sum_of_block(own, sums) / op.size;
  own = 0;
  for (int64_t i = thread; i < op.size; i += norm_threads) own += (x[i] - mean) * (x[i] - mean);
  const float inverse = 1 / sqrtf(sum_of_block(own, sums) / op.size + op.epsilon);
  for (int64_t i = thread; i < op.size; i += norm_threads) y[i] = (x[i] - mean) * inverse;
  if (thread == 0) play.at(op.inverse_std, run)[b] = inverse;
}

__global__ void layer_norm_backward_kernel(LayerNormBackward op, Play play) {
  const int run = static_cast<int>(blockIdx.z), b = static_cast<int>(blockIdx.x), thread = static_cast<int>(threadIdx.x);
  const float *y = play.at(op.output, run) + b * op.size, *g = play.at(op.grad_output, run) + b * op.size;
  __shared__ float sums[norm_threads];
  float own = 0, along = 0;
  for (int64_t i = thread; i < op.size; i += norm_threads) own += g[i], along += g[i] * y[i];
  const float mean = sum_of_block(own, sums) / op.size, share = sum_of_block(along, sums) / op.size;
  const float inverse = play.at(op.inverse_std, run)[b];
  float* grad_input = play.at(op.grad_input, run) + b * op.size;
  for (int64_t i = thread; i < op.size; i += norm_threads) grad_input[i] = inverse * (g[i] - mean - y[i] * share);
}

}  // namespace

void layer_norm_forward(const Queue& queue, const LayerNormForward& op, const Play& play) {
  launch(queue.stream, layer_norm_forward_kernel, dim3(static_cast<unsigned>(play.batch.count), 1, static_cast<unsigned>(play.runs)),
         dim3(norm_threads), op, play);
}

void layer_norm_backward(const Queue& queue, const LayerNormBackward& op, const Play& play) {
  launch(queue.stream, layer_norm_backward_kernel, dim3(static_cast<unsigned>(play.batch.count), 1, static_cast<unsigned>(play.runs)),
         dim3(norm_threads), op, play);
}

namespace {

// A block has 32 columns of [rows, columns] side by side; eight threads share the rows of each, and their sums are added in order.
constexpr int tile_width = 32, row_threads = 8;
struct Column {
  int64_t at;
  bool is;
  __device__ explicit Column(int64_t columns) : at(static_cast<int64_t>(blockIdx.x) * tile_width + threadIdx.x), is(at < columns) {}
};
template <class Term>
__device__ double sum_column(const Column& column, int64_t rows, int64_t columns, double (&parts)[row_threads][tile_width], Term term) {
  double own = 0;
  for (int64_t row = threadIdx.y; row < rows && column.is; row += row_threads) own += term(row * columns + column.at);
  __syncthreads();
  parts[threadIdx.y][threadIdx.x] = own;
  __syncthreads();
  double sum = 0;
  for (int k = 0; k < row_threads; ++k) sum += parts[k][threadIdx.x];
  return sum;
}
template <class Visit>
__device__ void for_rows(const Column& column, int64_t rows, int64_t columns, Visit visit) {
  for (int64_t row = threadIdx.y; row < rows && column.is; row += row_threads) visit(row * columns + column.at);
}
template <class Kernel, class Op>
void launch_columns(const Queue& queue, Kernel kernel, const Op& op, const Play& play, int64_t columns) {
  launch(queue.stream, kernel, dim3(blocks_for(columns, tile_width), 1, static_cast<unsigned>(play.runs)), dim3(tile_width, row_threads),
         op, play);
}

__global__ void batch_norm_forward_kernel(BatchNormForward op, Play play) {
  const int run = static_cast<int>(blockIdx.z);
  const int64_t rows = static_cast<int64_t>(play.batch.count) * op.positions, columns = op.channels;
  const float* x = play.at(op.input, run);
  float* y = play.at(op.output, run);
  __shared__ double parts[row_threads][tile_width];
  const Column column(columns);
  const auto mean =
      static_cast<float>(sum_column(column, rows, columns, parts, [&](int64_t i) { return x[i]; }) / static_cast<double>(rows));
  const auto variance = static_cast<float>(sum_column(column, rows, columns, parts,
                                                      [&](int64_t i) {
                                                        const float d = x[i] - mean;
                                                        return d * d;
                                                      }) /
                                           static_cast<double>(rows));
  const float inverse = 1 / sqrtf(variance + op.epsilon);
  for_rows(column, rows, columns, [&](int64_t i) { y[i] = (x[i] - mean) * inverse; });
  if (!column.is || threadIdx.y > 0) return;
  play.at(op.mean, run)[column.at] = mean;
  play.at(op.variance, run)[column.at] = variance;
  play.at(op.inverse_std, run)[column.at] = inverse;
}

__global__ void batch_norm_backward_kernel(BatchNormBackward op, Play play) {
  const int run = static_cast<int>(blockIdx.z);
  const int64_t rows = static_cast<int64_t>(play.batch.count) * op.positions, columns = op.channels;
  const float *y = play.at(op.output, run), *g = play.at(op.grad_output, run);
  float* grad_input = play.at(op.grad_input, run);
  __shared__ double parts[row_threads][tile_width];
  const Column column(columns);
  const double count = static_cast<double>(rows);
  const auto mean = static_cast<float>(sum_column(column, rows, columns, parts, [&](int64_t i) { return g[i]; }) / count);
  const auto along = static_cast<float>(sum_column(column, rows, columns, parts, [&](int64_t i) { return g[i] * y[i]; }) / count);
  for_rows(column, rows, columns,
           [&](int64_t i) { grad_input[i] = play.at(op.inverse_std, run)[column.at] * (g[i] - mean - y[i] * along); });
}

__global__ void scale_backward_kernel(ScaleBackward op, Play play) {
  const int run = static_cast<int>(blockIdx.z);
  const int64_t columns = op.gains, rows = play.batch.count * op.size / columns;
  const float *x = play.at(op.input, run), *g = play.at(op.grad_output, run);
  __shared__ double parts[row_threads][tile_width];
  const Column column(columns);
  if (float* grad_gain = play.at(op.grad_weight, run)) {
    const double gain = sum_column(column, rows, columns, parts, [&](int64_t i) { return g[i] * x[i]; });
    const double bias = sum_column(column, rows, columns, parts, [&](int64_t i) { return g[i]; });
    if (column.is && threadIdx.y == 0) {
      grad_gain[column.at] = static_cast<float>(gain);
      play.at(op.grad_bias, run)[column.at] = static_cast<float>(bias);
    }
  }
  float* grad_input = play.at(op.grad_input, run);
  if (!grad_input) return;
  for_rows(column, rows, columns, [&](int64_t i) { grad_input[i] = play.at(op.weight, run)[column.at] * g[i]; });
}

}  // namespace

void batch_norm_forward(const Queue& queue, const BatchNormForward& op, const Play& play) {
  launch_columns(queue, batch_norm_forward_kernel, op, play, op.channels);
}

void batch_norm_backward(const Queue& queue, const BatchNormBackward& op, const Play& play) {
  launch_columns(queue, batch_norm_backward_kernel, op, play, op.channels);
}

void batch_norm_apply(const Queue& queue, const BatchNormApply& op, const Play& play) {
  for_each(queue, play, static_cast<int64_t>(play.batch.count) * op.positions * op.channels, [op, play] __device__(int run, int64_t i) {
    const int64_t c = i % op.channels;
    const float variance = play.at(op.running_variance, run)[c];
    play.at(op.output, run)[i] = (play.at(op.input, run)[i] - play.at(op.running_mean, run)[c]) / sqrtf(variance + op.epsilon);
  });
}

void batch_norm_track(const Queue& queue, const BatchNormTrack& op, const Play& play) {
  for_each(queue, play, op.channels, [op, play] __device__(int run, int64_t c) {
    if (!learns(play, run)) return;
    const double rows = static_cast<double>(play.batch.total) * op.positions;
    float &mean = play.at(op.running_mean, run)[c], &variance = play.at(op.running_variance, run)[c];
    mean = running(mean, play.at(op.mean, run)[c], op.momentum);
    variance = running(variance, static_cast<float>(play.at(op.variance, run)[c] * rows / (rows - 1)), op.momentum);
  });
}

void scale_forward(const Queue& queue, const ScaleForward& op, const Play& play) {
  for_each(queue, play, op.size * play.batch.count, [op, play] __device__(int run, int64_t i) {
    const int64_t c = i % op.gains;
    play.at(op.output, run)[i] = play.at(op.weight, run)[c] * play.at(op.input, run)[i] + play.at(op.bias, run)[c];
  });
}

void scale_backward(const Queue& queue, const ScaleBackward& op, const Play& play) {
  launch_columns(queue, scale_backward_kernel, op, play, op.gains);
}

}  // namespace klopf::cuda
