// How active a group's units were, from the forward pass; and their utilities, with the weights after the update.
#include "common.hpp"
#include "kernels.hpp"
#include "klopf/philox.hpp"
#include "rules/utilities.hpp"

namespace klopf::cuda {
namespace {

// A block is a tile of units, neighbours in memory, times a few threads for each: these share the rows of a sum, or, where positions
// are kept apart, the positions.
constexpr int tile_units = 32, unit_threads = 8;

// The sum of what a unit's threads have, in their order; the same in all of them.
__device__ float sum_of_threads(float part) {
  __shared__ float parts[unit_threads][tile_units];
  __syncthreads();
  parts[threadIdx.y][threadIdx.x] = part;
  __syncthreads();
  float sum = parts[0][threadIdx.x];
  for (int i = 1; i < unit_threads; ++i) sum += parts[i][threadIdx.x];
  return sum;
}

// What this thread does: a unit and the positions first, first + step, ... that are kept apart. Units beyond the last do as the last
// does, so that all threads meet at barriers, but store nothing.
struct Place {
  int run, unit, keeps, first, step;
  bool stores;
  __device__ explicit Place(const Units& g)
      : run(static_cast<int>(blockIdx.z)),
        unit(static_cast<int>(blockIdx.x) * tile_units + static_cast<int>(threadIdx.x)),
        keeps(g.weights_by_position ? g.positions : 1),
        first(keeps > 1 ? static_cast<int>(threadIdx.y) : 0),
        step(keeps > 1 ? unit_threads : 1),
        stores(unit < g.units) {
    if (!stores) unit = g.units - 1;
  }
  // The sum of value(row) at one of its positions: by all of the unit's threads, or by this one alone.
  template <class Value>
  __device__ float sum(int64_t rows, const Value& value) const {
    float part = 0;
    if (keeps > 1) {
      for (int64_t row = 0; row < rows; ++row) part += value(row);
      return part;
    }
    for (int64_t row = threadIdx.y; row < rows; row += unit_threads) part += value(row);
    return sum_of_threads(part);
  }
  // A sum over positions, where each thread has that over its own.
  __device__ float over_positions(float part) const { return keeps > 1 ? sum_of_threads(part) : part; }
  // The sum over samples, and over positions that are not kept apart, of |activity - centre|, or of the activity.
  template <bool with_sign>
  __device__ float activity(const Units& g, const Play& play, int kept, float centre) const {
    const float* y = play.at(g.activity, run) + static_cast<int64_t>(kept) * g.units + unit;
    const int64_t distance = static_cast<int64_t>(keeps) * g.units;
    return sum(static_cast<int64_t>(play.batch.count) * g.positions / keeps,
               [&](int64_t row) { return with_sign ? y[row * distance] : fabsf(y[row * distance] - centre); });
  }
};
dim3 grid_of(const Units& g, const Play& play) { return {blocks_for(g.units, tile_units), 1, static_cast<unsigned>(play.runs)}; }

__global__ void unit_activity_kernel(UnitActivity op, Play play) {
  const Units& g = op.group;
  const Place at(g);
  float signed_sum = 0;
  for (int k = at.first; k < at.keeps; k += at.step) {
    signed_sum += at.activity<true>(g, play, k, 0);
    const float magnitude = at.activity<false>(g, play, k, 0);
    if (at.stores) play.at(op.sums.magnitude, at.run)[k * g.units + at.unit] = magnitude;
  }
  signed_sum = at.over_positions(signed_sum);
  if (at.stores) play.at(op.sums.signed_sum, at.run)[at.unit] = signed_sum;
}

__device__ float corrected(float trace, double decay, int32_t age) {
  return static_cast<float>(trace / (1 - pow(decay, static_cast<double>(age))));
}

__global__ void unit_utility_kernel(UnitUtility op, Play play) {
  const Units& g = op.group;
  const Place at(g);
  const int run = at.run, u = at.unit, taps = g.taps / at.keeps;
  if (!learns(play, run)) return;
  const double decay = *play.at(op.utility_decay, run);
  const float total = static_cast<float>(play.batch.count), per_kept = 1.0f / static_cast<float>(at.keeps);
  const float per_sample = 1.0f / (total * static_cast<float>(g.positions / at.keeps));

  const int32_t age = play.at(g.age, run)[u] + 1;
  const float mean_now = play.at(op.sums.signed_sum, run)[u] / (total * static_cast<float>(g.positions));
  const float mean = static_cast<float>(decay * play.at(g.mean_trace, run)[u] + (1 - decay) * mean_now);
  const float centre = corrected(mean, decay, age);
  UtilityMeasures::with(op.measure, [&](auto measure) {
    using Measure = decltype(measure);
    UnitSignals signals{0, 0, 0, 0, 0, 0};
    float last = 0;
    for (int k = at.first; k < at.keeps; k += at.step) {
      // outgoing weights [outputs, kept, taps, units]
      const float* outgoing = play.at(g.outgoing, run) + static_cast<int64_t>(k) * taps * g.units + u;
      const float magnitude = at.sum(static_cast<int64_t>(g.outputs) * taps,
                                     [&](int64_t row) { return fabsf(outgoing[(row / taps * g.taps + row % taps) * g.units]); });
      const float active = play.at(op.sums.magnitude, run)[k * g.units + u] * per_sample;
      last += active * per_kept;
      signals.contribution += active * magnitude * per_kept;
      signals.outgoing += magnitude * per_kept;
      if constexpr (Measure::needs.centred) {
        const float centred = at.activity<false>(g, play, k, centre) * per_sample;
        signals.centred_activity += centred * per_kept;
        signals.centred_contribution += centred * magnitude * per_kept;
      }
    }
    last = at.over_positions(last);
    for (float* signal : {&signals.contribution, &signals.outgoing, &signals.centred_activity, &signals.centred_contribution})
      *signal = at.over_positions(*signal);
    if constexpr (Measure::needs.incoming) {
      const float* incoming = play.at(g.incoming, run) + static_cast<int64_t>(u) * g.fan_in;
      float part = 0;
      for (int i = static_cast<int>(threadIdx.y); i < g.fan_in; i += unit_threads) part += fabsf(incoming[i]);
      signals.incoming = sum_of_threads(part) / static_cast<float>(g.fan_in);
    }
    if constexpr (Measure::needs.uniform)
      signals.uniform = uniform_at(*play.at(op.seed, run), Stream::random_utility, static_cast<uint32_t>(g.place),
                                   static_cast<uint64_t>(*play.at(op.step, run)), static_cast<uint32_t>(u));
    __syncthreads();  // all of a unit's threads have read what the first now writes
    if (!at.stores || threadIdx.y > 0) return;
    const float value = measure.value(signals);
    float &trace = play.at(g.utility_trace, run)[u], &utility = play.at(g.utility, run)[u];
    if constexpr (Measure::averaged) {
      trace = static_cast<float>(decay * trace + (1 - decay) * value);
      utility = corrected(trace, decay, age);
    } else {
      utility = value;
    }
    play.at(g.age, run)[u] = age;
    play.at(g.mean_trace, run)[u] = mean;
    play.at(g.mean_activity, run)[u] = centre;
    play.at(g.last_activity, run)[u] = last;
  });
}

}  // namespace

void unit_activity(const Queue& queue, const UnitActivity& op, const Play& play) {
  launch(queue.stream, unit_activity_kernel, grid_of(op.group, play), dim3(tile_units, unit_threads), op, play);
}

void unit_utility(const Queue& queue, const UnitUtility& op, const Play& play) {
  launch(queue.stream, unit_utility_kernel, grid_of(op.group, play), dim3(tile_units, unit_threads), op, play);
}

}  // namespace klopf::cuda
