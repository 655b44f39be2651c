#pragma once
#include <cstdint>
#include <variant>

#include "klopf/backend.hpp"
#include "rules/utilities.hpp"

// What an operation has to do for one run, counted on paper: multiplications and additions as if nothing were zero (nominal), and bytes
// as if every array were read once and written once. The only place where they are counted; small per-run numbers are left out, and
// operations without an entry move too little to count.
namespace klopf::micro {

struct Cost {
  double flop = 0, bytes = 0;
};

// Numbers of 4 bytes: of the input, of the weights with biases, of the output.
struct Sizes {
  double input, weights, output, flop;
};
inline Sizes sizes(const LinearShape& s, double batch) {
  const double weights = static_cast<double>(s.inputs) * s.outputs;
  return {batch * s.inputs, weights + s.outputs, batch * s.outputs, 2 * weights * batch};
}
inline Sizes sizes(const ConvShape& s, double batch) {
  const double taps = static_cast<double>(s.channels) * s.kernel_height * s.kernel_width, pixels = batch * s.out_height * s.out_width;
  return {batch * s.channels * s.height * s.width, (taps + 1) * s.outputs, pixels * s.outputs, 2 * taps * s.outputs * pixels};
}
inline double pixels(const PoolShape& s) { return static_cast<double>(s.channels) * s.height * s.width; }
inline double pooled(const PoolShape& s) { return static_cast<double>(s.channels) * s.out_height * s.out_width; }
template <class Op>
double pooled(const Op& op) {
  return static_cast<double>(op.shape.outputs) * op.pooled_height * op.pooled_width;
}

// Weights and biases are read, the input, and the output is written.
template <class Op>
Cost forward(const Op& op, double batch) {
  const Sizes s = sizes(op.shape, batch);
  return {s.flop, 4 * (s.input + s.weights + s.output)};
}
// Input and the output's gradient are read, the weights' gradient is written; for that of the input another product, which reads weights.
template <class Op>
Cost backward(const Op& op, double batch) {
  const Sizes s = sizes(op.shape, batch);
  const double both = op.grad_input.present() ? 2 : 1;
  return {both * s.flop, 4 * (both * (s.input + s.weights) + s.output)};
}

inline Cost cost(const LinearForward& op, const Batch& b) { return forward(op, b.count); }
inline Cost cost(const LinearBackward& op, const Batch& b) { return backward(op, b.count); }
inline Cost cost(const ConvForward& op, const Batch& b) { return forward(op, b.count); }
inline Cost cost(const ConvBackward& op, const Batch& b) { return backward(op, b.count); }
// Instead of the output, 4 bytes of the pooled one, and a byte of its position.
template <class Op>
Cost with_pool(const Op& op, Cost c, double batch) {
  return {c.flop, c.bytes - 4 * sizes(op.shape, batch).output + 5 * batch * pooled(op)};
}
inline Cost cost(const ConvReluPoolForward& op, const Batch& b) { return with_pool(op, forward(op, b.count), b.count); }
inline Cost cost(const ConvReluPoolBackward& op, const Batch& b) { return with_pool(op, backward(op, b.count), b.count); }

inline Cost cost(const LoadBatch& op, const Batch& b) {
  const double numbers = static_cast<double>(b.count) * op.channels * op.height * op.width;
  return {0, numbers * ((b.type == InputType::uint8 ? 1 : 4) + 4)};
}
inline Cost cost(const MaxPoolForward& op, const Batch& b) { return {0, b.count * (4 * pixels(op.shape) + 5 * pooled(op.shape))}; }
inline Cost cost(const MaxPoolBackward& op, const Batch& b) { return {0, b.count * (4 * pixels(op.shape) + 5 * pooled(op.shape))}; }
inline Cost cost(const ActivationForward& op, const Batch& b) { return {0, 8.0 * b.count * static_cast<double>(op.size)}; }
inline Cost cost(const ActivationBackward& op, const Batch& b) { return {0, 12.0 * b.count * static_cast<double>(op.size)}; }
inline Cost cost(const LayerNormForward& op, const Batch& b) { return {0, 8.0 * b.count * static_cast<double>(op.size)}; }
inline Cost cost(const LayerNormBackward& op, const Batch& b) { return {0, 12.0 * b.count * static_cast<double>(op.size)}; }
inline Cost cost(const Loss& op, const Batch& b) {
  const double numbers = static_cast<double>(b.count) * op.outputs, targets = b.labels ? b.count : numbers;
  return {0, 4 * (numbers * (op.grad_output.present() ? 2 : 1) + targets)};
}

// Weights are read and written, gradients read; what the optimizer keeps is read and written.
inline Cost cost(const SgdStep& op, const Batch&) { return {0, (op.momentum.present() ? 20.0 : 12.0) * static_cast<double>(op.count)}; }
inline Cost cost(const AdamStep& op, const Batch&) { return {0, 36.0 * static_cast<double>(op.count)}; }
inline Cost cost(const Perturb& op, const Batch&) { return {0, 8.0 * static_cast<double>(op.count)}; }

inline double activities(const Units& g, const Batch& b) { return static_cast<double>(b.count) * g.positions * g.units; }
inline double sums(const Units& g) { return static_cast<double>(g.units) * (1 + (g.weights_by_position ? g.positions : 1)); }
inline Cost cost(const UnitActivity& op, const Batch& b) { return {0, 4 * (activities(op.group, b) + sums(op.group))}; }
// Sums and outgoing weights; activities and incoming weights where the measure needs them; five running numbers a unit, and its last.
inline Cost cost(const UnitUtility& op, const Batch& b) {
  const Units& g = op.group;
  Needs needs;
  UtilityMeasures::with(op.measure, [&](auto measure) { needs = decltype(measure)::needs; });
  const double outgoing = static_cast<double>(g.outputs) * g.taps * g.units, incoming = static_cast<double>(g.units) * g.fan_in;
  return {0, 4 * (sums(g) + outgoing + (needs.centred ? activities(g, b) : 0) + (needs.incoming ? incoming : 0) + 9.0 * g.units)};
}

inline double outgoing_weights(const Units& g) { return static_cast<double>(g.outputs) * g.taps * g.units; }
inline Cost cost(const RememberOutgoing& op, const Batch&) { return {0, 8 * outgoing_weights(op.group)}; }
// Outgoing weights now and before; incoming weights with their perturbation and its trace, which are read and written.
inline Cost cost(const GoalPerturbation& op, const Batch&) {
  const Units& g = op.units.group;
  return {0, 8 * outgoing_weights(g) + 24.0 * g.units * (g.fan_in + 1)};
}

template <class Op>
Cost cost(const Op&, const Batch&) {
  return {};
}

inline const char* name(std::monostate) { return ""; }
#define KLOPF_NAME(Type, name_) \
  inline const char* name(const Type&) { return #name_; }
KLOPF_OPERATIONS(KLOPF_NAME)
#undef KLOPF_NAME

}  // namespace klopf::micro
