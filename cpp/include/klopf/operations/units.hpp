#pragma once
#include "klopf/operations/play.hpp"

// Units: how useful they are, which are replaced, and how weights are drawn.
namespace klopf {

// The arrays of a group of units. Everything that judges, replaces or protects units is written against this.
struct Units {
  int32_t units, fan_in;
  int32_t positions;            // S: places at which a unit is active (1, or H x W after pooling)
  int32_t outputs, taps;        // outgoing weights [outputs, taps, units]
  int32_t weights_by_position;  // 1: taps are positions (a flattened layer); 0: taps are shared by all positions
  int32_t height, width;        // of the positions
  int32_t rectified;            // whether it is active or silent: behind ReLU
  int32_t place, next_place;    // layers of the incoming and outgoing weights
  int32_t key;                  // of random numbers
  Ref<float> activity;          // [B, S, U]
  Ref<float> incoming, bias;    // [U, fan_in], [U]
  Ref<float> outgoing, next_bias;
  Ref<int32_t> age;                      // [U] parameter updates
  Ref<float> last_activity;              // [U] mean |activity| of the last step
  Ref<float> mean_trace, mean_activity;  // [U] running mean activity, and the same bias-corrected
  Ref<float> utility_trace, utility;     // [U] running utility, and the same bias-corrected: what selection compares
  Ref<float> variance;                   // [U] running variance of activity, bias-corrected, where a rule asks for it
  Ref<uint8_t> vacant;                   // [U] where no unit lives: all its weights are zero; absent: all live
  Ref<float> wires;                      // [U, fan_in] 1 where it listens, 0 where its weight stays zero; absent: it listens to all
  int32_t wire_count;                    // of a unit
  Ref<int32_t> promoted;                 // [U] age at which it first was of the backbone, 0 before, where a rule has one
};

enum class Initial : uint32_t { uniform, sparse };
struct InitialDistribution {
  Initial kind;
  float weight_bound, bias_bound;
};
struct DrawWeights {
  InitialDistribution initial;
  int32_t rows, columns, key;
  Ref<float> weight, bias;
  Ref<uint64_t> seed;
  Ref<int64_t> draw;  // how often the network was drawn before
};

struct DrawWires {  // of all units, at random
  Units group;
  Ref<uint64_t> seed;
  Ref<int64_t> draw;
};
struct CutWires {  // weights, or what is of weights, becomes zero where there is no wire
  int64_t count;
  Ref<float> wires, values;
};

// Gradients of incoming weights and biases of units that do not count become zero.
struct CutUnits {
  Units group;
  Ref<uint8_t> counted;               // [U]
  Ref<float> grad_weight, grad_bias;  // of each chunk
};

// How active units were in the samples of a chunk: sums over these and positions, [U], or where weights are by position over these
// alone, [positions, U]. A backend may keep several parts of them.
struct ActivitySums {
  Ref<float> signed_sum, square;  // (on the CPU always [U]; squares only where the group has a variance)
  Ref<float> magnitude;           // of |activity|
};
struct UnitActivity {
  Units group;
  ActivitySums sums;
};

struct UnitUtility {
  Units group;
  ActivitySums sums;
  int32_t measure;          // index into rules/utilities.hpp
  Ref<uint8_t> successors;  // [outputs] whose weights count, for measures of variance; absent: all
  Ref<double> utility_decay;
  Ref<uint64_t> seed;
  Ref<int64_t> step;
  Ref<float> scratch;
};

// How much of what the next layer hears comes from each unit: a share of the group's. Reputation is earned fast and lost slowly; units
// of enough are the backbone.
struct UnitReputation {
  Units group;              // utility_trace: the running share; utility: the reputation; and when units were promoted
  Ref<float> contribution;  // [U] at this step
  Ref<double> utility_decay, reputation_decay, dormancy, threshold;
  Ref<uint8_t> backbone;  // [U]
};

enum class CountFrom : uint32_t { eligible, all };
enum class CountMode : uint32_t { accumulate, bernoulli };
struct UnitSelect {
  Units group;
  CountFrom count_from;
  CountMode count_mode;
  Ref<double> replacement_rate, maturity, carry;
  Ref<uint8_t> kept;      // [U] who cannot be chosen; absent: everybody can
  Ref<uint8_t> replaced;  // [U]
  Ref<uint64_t> seed;
  Ref<int64_t> step;
};

// Where the error stays and the fringe has too few units, one is added if there is room.
struct UnitGrow {
  Units group;
  Ref<uint8_t> backbone, replaced;  // [U] who begins anew at this step, of whom the new unit will be one
  Ref<uint8_t> sources_vacant;      // [sources] of the group that it listens to, where that has room; else absent
  int32_t sources;
  Ref<double> error;  // of this step
  int32_t squared;    // whether it counts squared
  Ref<double> error_decay, period, tolerated_error, progress, candidates;
  Ref<double> running_error, last_error;  // last: when the error was looked at last
  Ref<int64_t> looks;                     // steps until now
};
// The end of a step: where no unit lives all weights are zero, and age and statistics as at birth.
struct UnitVacate {
  Units group;
  Ref<float> weights, origin;  // as of UnitReplace
};

// Every so many steps all units whose share of the layer's activity is low (ReDo).
struct SelectDormant {
  Units group;
  Ref<double> threshold, period;
  Ref<uint8_t> replaced;  // [U]
  Ref<int64_t> step;
};

// Units that have been silent for longer than a percentile of their own silences (SNR). A batch in which a unit never fires counts as
// many silent samples as it has.
struct SelectSilent {
  Units group;
  Ref<double> percentile, period, threshold, longest;
  Ref<int32_t> silence, limit;  // [U] samples: since a unit fired; after how many it goes, 0 before the first step
  Ref<int32_t> gaps;            // [U, silence_bins] how many silences were how long, since limits were last made
  Ref<uint8_t> replaced;        // [U]
  Ref<int64_t> step;
};

// Numbers that belong to a unit beside its weights and bias, of the normalisation behind it: [copies, units], and what they are at birth.
struct Companion {
  Ref<float> values;
  int32_t copies;
  float birth;
  int32_t learned;    // among the weights
  int32_t first_row;  // and there among the rows of all layers
};
// State that an optimizer keeps for each weight, in the order of the weights.
struct WeightState {
  Ref<uint32_t> values;  // 32-bit words
  Ref<double> birth;     // what it is where a unit starts anew, as a float; absent: zero
};
struct UnitReplace {
  Units group;
  InitialDistribution initial;
  int32_t transfer_mean_to_bias;
  Ref<uint8_t> replaced;
  Companion companions[8];
  Ref<float> weights;  // start of all the network's weights: where WeightState lines up
  Ref<float> origin;   // likewise: the weights as they began, where they are kept
  WeightState state[8];
  WeightState unit_state[2];  // the same for each unit of the network; the group's first is first_row
  int32_t first_row;
  Ref<uint64_t> seed;
  Ref<int64_t> step;
};

// Of each unit's mature wires a share is dropped at every step, the weakest first, and as many others are tried, from zero.
struct UnitRewire {
  Units group;
  Ref<double> rate, maturity;
  Ref<double> carry;      // [U]
  Ref<int32_t> wire_age;  // [U, fan_in] updates
  Ref<uint8_t> replaced;  // [U] who begins anew at this step; absent: nobody
  Ref<float> weights, origin;
  WeightState state[8];
  Ref<uint64_t> seed;
  Ref<int64_t> step;
};

// Who is about to be replaced, in a ring of so many places.
struct EventLog {
  int32_t capacity;          // 0: none is kept
  Ref<int64_t> count, step;  // how many there were; of each [capacity]
  Ref<int32_t> group, unit, age, cause;
  Ref<float> utility;
};
struct LogEvents {
  EventLog log;
  int32_t group, units, cause;
  Ref<uint8_t> replaced, vacant;
  Ref<int32_t> age;
  Ref<float> utility;
  Ref<int64_t> step;
};

struct Advance {  // the end of a step
  Ref<int64_t> step;
};

}  // namespace klopf
