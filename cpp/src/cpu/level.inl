// The kernels of one instruction-set level. KLOPF_LEVEL names it; everything here has internal linkage.
#include <float.h>
#include <math.h>
#include <stdint.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "cpu/kernels.hpp"
#include "klopf/operations.hpp"
#include "klopf/philox.hpp"
#include "rules/activations.hpp"
#include "rules/dropout.hpp"
#include "rules/goals.hpp"
#include "rules/losses.hpp"
#include "rules/normal.hpp"
#include "rules/optimizers.hpp"
#include "rules/owners.hpp"
#include "rules/perturbation.hpp"
#include "rules/reputation.hpp"
#include "rules/step_sizes.hpp"
#include "rules/utilities.hpp"

namespace klopf::cpu {
namespace {
// clang-format off: each builds on those before it
#include "cpu/vec.inl"
#include "cpu/tile.inl"
#include "cpu/gather.inl"
#include "cpu/sparse.inl"
#include "cpu/linear.inl"
#include "cpu/conv.inl"
#include "cpu/maxima.inl"
#include "cpu/winograd.inl"
#include "cpu/winograd_rows.inl"
#include "cpu/conv_pool.inl"
#include "cpu/conv_lists.inl"
#include "cpu/conv_backward.inl"
#include "cpu/pool.inl"
#include "cpu/elementwise.inl"
#include "cpu/normalise.inl"
#include "cpu/update.inl"
#include "cpu/step_sizes.inl"
#include "cpu/utility.inl"
#include "cpu/goals.inl"
#include "cpu/perturbation.inl"
// clang-format on

int64_t linear_scratch(const LinearShape& s) { return static_cast<int64_t>(round_up(s.outputs, block)) * s.inputs; }
int64_t conv_scratch(const ConvShape& s) { return packed_size(s) + (s.padding ? padded_size(s) : 0); }
int64_t conv_relu_pool_scratch(const ConvReluPoolForward& op) {
  return conv_relu_pool_work(op) + (op.shape.padding ? padded_size(op.shape) : 0);
}
int64_t conv_backward_scratch(const ConvShape& s, int places) { return backward_scratch(s, places); }
int64_t unit_utility_scratch(const Units& g) { return utility_scratch(g); }
}  // namespace

// clang-format off
const Kernels KLOPF_LEVEL = {
#define KLOPF_ENTRY(Type, name) name,
    KLOPF_HEAVY_OPERATIONS(KLOPF_ENTRY)
#undef KLOPF_ENTRY
    linear_scratch, conv_scratch, conv_relu_pool_scratch, conv_backward_scratch, unit_utility_scratch};
// clang-format on
}  // namespace klopf::cpu
