// How active a group's units were, from the forward pass; and their utilities, with the weights after the update.
#include "common.hpp"
#include "kernels.hpp"
#include "klopf/philox.hpp"
#include "rules/reputation.hpp"
#include "rules/utilities.hpp"

namespace klopf::cuda {
namespace {

// A block is a tile of neighbours in memory, times some threads for each, which share the rows of a sum.
constexpr int tile_width = 32, sum_threads = 8, utility_threads = 16;

// Positions that are kept apart; the others are summed like samples.
__host__ __device__ inline int kept_of(const Units& g) { return g.weights_by_position ? g.positions : 1; }
__host__ __device__ inline int64_t rows_of(const Units& g, int64_t samples) { return samples * g.positions / kept_of(g); }

// Into how many parts sums over rows are split.
int parts_of(const Units& g, int64_t samples) {
  constexpr int64_t least = 256, most = 64;
  const int64_t parts = rows_of(g, samples) / least;
  return static_cast<int>(parts < 1 ? 1 : parts > most ? most : parts);
}

// The sum of what the threads above one another have, in their order; the same in all of them.
__device__ float sum_of_threads(float part) {
  __shared__ float parts[utility_threads][tile_width];
  __syncthreads();
  parts[threadIdx.y][threadIdx.x] = part;
  __syncthreads();
  float sum = parts[0][threadIdx.x];
  for (unsigned i = 1; i < blockDim.y; ++i) sum += parts[i][threadIdx.x];
  return sum;
}
template <class Value>
__device__ float sum_over(int64_t from, int64_t to, const Value& value) {
  float part = 0;
  for (int64_t i = from + threadIdx.y; i < to; i += blockDim.y) part += value(i);
  return sum_of_threads(part);
}

// Which of `count` a thread works for. Those beyond the last do as the last does, so that all threads meet at barriers, but store
// nothing.
struct Place {
  int64_t at;
  bool stores;
  __device__ explicit Place(int64_t count)
      : at(static_cast<int64_t>(blockIdx.x) * tile_width + threadIdx.x), stores(at < count && threadIdx.y == 0) {
    if (at >= count) at = count - 1;
  }
};

__device__ float corrected(float trace, double decay, int32_t age) {
  return static_cast<float>(trace / (1 - pow(decay, static_cast<double>(age))));
}

// Mean over a batch of what a unit's sums [parts, kept, U] are of.
__device__ float batch_mean(const Units& g, const Play& play, const float* sums, int unit, int parts) {
  const float sum = sum_over(0, static_cast<int64_t>(parts) * kept_of(g), [&](int64_t i) { return sums[i * g.units + unit]; });
  return sum / (static_cast<float>(play.batch.count) * static_cast<float>(g.positions));
}

// A unit's age, and mean and variance of its activity, with this step.
struct Now {
  int32_t age;
  float mean, centre, variance = 0;
  __device__ Now(const UnitUtility& op, const Play& play, int run, int unit, int parts) {
    const Units& g = op.group;
    const double decay = *play.at(op.utility_decay, run);
    const float mean_now = batch_mean(g, play, play.at(op.sums.signed_sum, run), unit, parts);
    age = play.at(g.age, run)[unit] + 1;
    if (g.variance.present())
      variance = running_variance(play.at(g.variance, run)[unit], play.at(g.mean_activity, run)[unit], mean_now,
                                  batch_mean(g, play, play.at(op.sums.square, run), unit, parts),
                                  (1 - decay) / (1 - pow(decay, static_cast<double>(age))));
    mean = static_cast<float>(decay * play.at(g.mean_trace, run)[unit] + (1 - decay) * mean_now);
    centre = corrected(mean, decay, age);
  }
};

// The rows that are this block's, of the columns [kept, units] of activities.
struct Rows {
  int64_t columns, from, to;
  __device__ Rows(const Units& g, const Play& play) : columns(static_cast<int64_t>(kept_of(g)) * g.units) {
    const int64_t rows = rows_of(g, play.batch.count), each = (rows + gridDim.y - 1) / gridDim.y;
    from = blockIdx.y * each;
    to = from + each < rows ? from + each : rows;
  }
  __device__ int64_t part(const Place& place) const { return blockIdx.y * columns + place.at; }
};

__global__ void unit_activity_kernel(UnitActivity op, Play play) {
  const int run = static_cast<int>(blockIdx.z);
  const Rows rows(op.group, play);
  const Place place(rows.columns);
  const float* y = play.at(op.group.activity, run) + place.at;
  float magnitude = 0, signed_sum = 0, square = 0;
  for (int64_t row = rows.from + threadIdx.y; row < rows.to; row += blockDim.y) {
    const float value = y[row * rows.columns];
    signed_sum += value;
    magnitude += fabsf(value);
    square += value * value;
  }
  magnitude = sum_of_threads(magnitude);
  signed_sum = sum_of_threads(signed_sum);
  if (op.sums.square.present()) square = sum_of_threads(square);
  if (!place.stores) return;
  play.at(op.sums.magnitude, run)[rows.part(place)] = magnitude;
  play.at(op.sums.signed_sum, run)[rows.part(place)] = signed_sum;
  if (op.sums.square.present()) play.at(op.sums.square, run)[rows.part(place)] = square;
}

// Sums of |activity - mean|, for measures that look at them.
__global__ void unit_deviation_kernel(UnitUtility op, Play play) {
  const int run = static_cast<int>(blockIdx.z);
  if (!learns(play, run)) return;
  const Rows rows(op.group, play);
  const Place place(rows.columns);
  const float centre = Now(op, play, run, static_cast<int>(place.at % op.group.units), static_cast<int>(gridDim.y)).centre;
  const float* y = play.at(op.group.activity, run) + place.at;
  const float sum = sum_over(rows.from, rows.to, [&](int64_t row) { return fabsf(y[row * rows.columns] - centre); });
  if (place.stores) play.at(op.scratch, run)[rows.part(place)] = sum;
}

__global__ void unit_utility_kernel(UnitUtility op, Play play, int parts) {
  const Units& g = op.group;
  const int run = static_cast<int>(blockIdx.z);
  if (!learns(play, run)) return;
  const Place place(g.units);
  const int u = static_cast<int>(place.at), kept = kept_of(g), taps = g.taps / kept;
  const int64_t columns = static_cast<int64_t>(kept) * g.units;
  const float per_kept = 1.0f / static_cast<float>(kept), per_sample = 1.0f / static_cast<float>(rows_of(g, play.batch.count));
  const Now now(op, play, run, u, parts);
  UtilityMeasures::with(op.measure, [&](auto measure) {
    using Measure = decltype(measure);
    UnitSignals signals{0, 0, 0, 0, 0, 0, 0, 0};
    float last = 0;
    for (int k = 0; k < kept; ++k) {
      const auto mean_of = [&](const float* sums) {
        return sum_over(0, parts, [&](int64_t part) { return sums[part * columns + k * g.units + u]; }) * per_sample;
      };
      // outgoing weights [outputs, kept, taps, units]
      const float* outgoing = play.at(g.outgoing, run) + static_cast<int64_t>(k) * taps * g.units + u;
      const float magnitude = sum_over(0, static_cast<int64_t>(g.outputs) * taps, [&](int64_t i) {
        const int row = static_cast<int>(i), o = row / taps;
        return fabsf(outgoing[(static_cast<int64_t>(o) * g.taps + row - o * taps) * g.units]);
      });
      const float active = mean_of(play.at(op.sums.magnitude, run));
      last += active * per_kept;
      signals.contribution += active * magnitude * per_kept;
      signals.outgoing += magnitude * per_kept;
      if constexpr (Measure::needs.centred) {
        const float centred = mean_of(play.at(op.scratch, run));
        signals.centred_activity += centred * per_kept;
        signals.centred_contribution += centred * magnitude * per_kept;
      }
    }
    if constexpr (Measure::needs.incoming) {
      const float* incoming = play.at(g.incoming, run) + static_cast<int64_t>(u) * g.fan_in;
      signals.incoming = sum_over(0, g.fan_in, [&](int64_t i) { return fabsf(incoming[i]); }) / static_cast<float>(g.fan_in);
    }
    if constexpr (Measure::needs.uniform)
      signals.uniform = uniform_at(*play.at(op.seed, run), Stream::random_utility, static_cast<uint32_t>(g.key),
                                   static_cast<uint64_t>(*play.at(op.step, run)), static_cast<uint32_t>(u));
    if constexpr (Measure::needs.variance) {
      signals.variance = now.variance;
      const uint8_t* counts = play.at(op.successors, run);
      const float* outgoing = play.at(g.outgoing, run) + u;
      signals.outgoing_squares = sum_over(0, static_cast<int64_t>(g.outputs) * g.taps, [&](int64_t i) {
        const float w = counts && !counts[i / g.taps] ? 0 : outgoing[i * g.units];
        return w * w;
      });
    }
    __syncthreads();  // all of a unit's threads have read what the first now writes
    if (!place.stores) return;
    const float value = measure.value(signals);
    float &trace = play.at(g.utility_trace, run)[u], &utility = play.at(g.utility, run)[u];
    if constexpr (Measure::averaged) {
      const double decay = *play.at(op.utility_decay, run);
      trace = static_cast<float>(decay * trace + (1 - decay) * value);
      utility = corrected(trace, decay, now.age);
    } else {
      utility = value;
    }
    if (g.variance.present()) play.at(g.variance, run)[u] = now.variance;
    play.at(g.age, run)[u] = now.age;
    play.at(g.mean_trace, run)[u] = now.mean;
    play.at(g.mean_activity, run)[u] = now.centre;
    play.at(g.last_activity, run)[u] = last;
  });
}

dim3 grid_of(int64_t count, int parts, const Play& play) {
  return {blocks_for(count, tile_width), static_cast<unsigned>(parts), static_cast<unsigned>(play.runs)};
}

}  // namespace

void unit_activity(const Queue& queue, const UnitActivity& op, const Play& play) {
  const Units& g = op.group;
  launch(queue.stream, unit_activity_kernel, grid_of(static_cast<int64_t>(kept_of(g)) * g.units, parts_of(g, play.batch.count), play),
         dim3(tile_width, sum_threads), op, play);
}
int activity_parts(const Units& g, int capacity) { return parts_of(g, capacity); }

void unit_utility(const Queue& queue, const UnitUtility& op, const Play& play) {
  const Units& g = op.group;
  const int parts = parts_of(g, play.batch.count);
  if (UtilityMeasures::needs[op.measure].centred)
    launch(queue.stream, unit_deviation_kernel, grid_of(static_cast<int64_t>(kept_of(g)) * g.units, parts, play),
           dim3(tile_width, sum_threads), op, play);
  launch(queue.stream, unit_utility_kernel, grid_of(g.units, 1, play), dim3(tile_width, utility_threads), op, play, parts);
}
std::size_t unit_utility_scratch(const Units& g, int capacity) {
  return static_cast<std::size_t>(parts_of(g, capacity)) * static_cast<std::size_t>(kept_of(g)) * static_cast<std::size_t>(g.units);
}

}  // namespace klopf::cuda
