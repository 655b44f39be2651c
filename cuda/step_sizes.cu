// Rules by which step sizes follow from what is learned, and the curvature of losses.
#include "common.hpp"
#include "kernels.hpp"
#include "rules/curvature.hpp"
#include "rules/owners.hpp"
#include "rules/swift_td.hpp"

namespace klopf::cuda {
namespace {

// One block a row: a thread takes every 128th of its weights, and their sums are added in order; the bias comes last.
constexpr int row_threads = 128;
__global__ void measure_steps_kernel(MeasureSteps op, Play play) {
  const int run = static_cast<int>(blockIdx.z), row = static_cast<int>(blockIdx.x), thread = static_cast<int>(threadIdx.x);
  if (!learns(play, run)) return;
  const StepArrays arrays = arrays_of(op.all, play, run);
  const AutostepRates rates = autostep_rates(op.all, play, run);
  const StepLayer& layer = op.layer;
  __shared__ float firsts[row_threads], seconds[row_threads];
  float first = 0, second = 0;
  with_weight_rule(op.all, [&](auto rule) {
    const int64_t from = layer.weight + static_cast<int64_t>(row) * layer.columns;
    for (int i = thread; i < layer.columns; i += row_threads) rule.measure(arrays, rates, from + i, first, second);
    if (thread == row_threads - 1 && layer.bias >= 0) rule.measure(arrays, rates, layer.bias + row, first, second);
  });
  firsts[thread] = first, seconds[thread] = second;
  __syncthreads();
  if (thread > 0) return;
  double all_first = 0, all_second = 0;
  for (int k = 0; k < row_threads; ++k) all_first += firsts[k], all_second += seconds[k];
  double* sums = play.at(op.all.sums, run) + 2 * (layer.first_row + row);
  sums[0] = all_first, sums[1] = all_second;
}

// One block a run: a thread takes every 128th weight, and their sums are added in order.
__global__ void swift_step_kernel(SwiftStep op, Play play) {
  const int run = static_cast<int>(blockIdx.z), thread = static_cast<int>(threadIdx.x);
  if (!learns(play, run)) return;
  const SwiftArrays arrays = swift_arrays(op, play, run);
  __shared__ SwiftSums parts[row_threads];
  SwiftSums sums{};
  for (int64_t i = thread; i < op.count; i += row_threads) swift_measure(arrays, i, sums);
  parts[thread] = sums;
  __syncthreads();
  sums = {};
  for (int k = 0; k < row_threads; ++k) {
    sums.rate += parts[k].rate;
    sums.along += parts[k].along;
    sums.change += parts[k].change;
  }
  for (int64_t i = thread; i < op.count; i += row_threads) {
    swift_apply(arrays, i, sums);
    if (!(arrays.w[i] - arrays.w[i] == 0)) *play.at(op.all.alive, run) = 0;  // any thread may say so
  }
}

}  // namespace

void swift_step(const Queue& queue, const SwiftStep& op, const Play& play) {
  launch(queue.stream, swift_step_kernel, dim3(1, 1, static_cast<unsigned>(play.runs)), dim3(row_threads), op, play);
}

void measure_steps(const Queue& queue, const MeasureSteps& op, const Play& play) {
  launch(queue.stream, measure_steps_kernel, dim3(static_cast<unsigned>(op.layer.rows), 1, static_cast<unsigned>(play.runs)),
         dim3(row_threads), op, play);
}

void own_steps(const Queue& queue, const OwnSteps& op, const Play& play) {
  for_each(queue, play, op.each_row ? op.rows : 1, [op, play] __device__(int run, int64_t k) {
    if (learns(play, run)) own_rows(op, play, run, static_cast<int>(k));
  });
}

void bound_steps(const Queue& queue, const BoundSteps& op, const Play& play) {
  for_each(queue, play, op.each_row ? op.rows : 1, [op, play] __device__(int run, int64_t k) {
    if (learns(play, run)) bound_rows(op, play, run, static_cast<int>(k));
  });
}

void apply_steps(const Queue& queue, const ApplySteps& op, const Play& play) {
  const int64_t weights = static_cast<int64_t>(op.layer.rows) * op.layer.columns;
  for_each(queue, play, weights + (op.layer.bias < 0 ? 0 : op.layer.rows), [op, play, weights] __device__(int run, int64_t k) {
    if (!learns(play, run)) return;
    const StepArrays arrays = arrays_of(op.all, play, run);
    const int64_t row = k < weights ? k / op.layer.columns : k - weights, i = k < weights ? op.layer.weight + k : op.layer.bias + row;
    const float* factors = play.at(op.all.factors, run) + 2 * (op.layer.first_row + row);
    with_weight_rule(op.all, [&](auto rule) { rule.apply(arrays, i, factors[0], factors[1], reach_of(op.all, play, run)); });
    if (!(arrays.w[i] - arrays.w[i] == 0)) *play.at(op.all.alive, run) = 0;  // any thread may say so
  });
}

void curvature_probe(const Queue& queue, const CurvatureProbe& op, const Play& play) {
  const double scale = sqrt(1.0 / play.batch.total);
  for_each(queue, play, play.batch.count, [op, play, scale] __device__(int run, int64_t b) {
    const Batch& batch = play.batch;
    const int64_t place = (batch.done.present() ? *play.at(batch.done, run) : 0) + batch.first + b;
    curvature_probe(op.kind, play.at(op.output, run) + b * op.outputs, op.outputs, *play.at(op.seed, run), *play.at(op.step, run), place,
                    scale, play.at(op.probe, run) + b * op.outputs);
  });
}

// A batch is one chunk here.
void add_chunks(const Queue&, const AddChunks&, const Play&) {}

}  // namespace klopf::cuda
