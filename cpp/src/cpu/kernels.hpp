#pragma once
#include <stdint.h>

#include "klopf/operations.hpp"

// The heavy operations, compiled once for each instruction-set level. The others have one version.
namespace klopf::cpu {

struct Kernels {
#define KLOPF_POINTER(Type, name) void (*name)(const Type&, const Play&);
  KLOPF_HEAVY_OPERATIONS(KLOPF_POINTER)
#undef KLOPF_POINTER
  int64_t (*linear_scratch)(const LinearShape&);
  int64_t (*conv_scratch)(const ConvShape&);
  int64_t (*conv_relu_pool_scratch)(const ConvReluPoolForward&);
  int64_t (*conv_backward_scratch)(const ConvShape&, int places);
  int64_t (*unit_utility_scratch)(const Units&);
};

extern const Kernels baseline;
extern const Kernels avx2;    // where built (KLOPF_AVX2)
extern const Kernels avx512;  // where built (KLOPF_AVX512)

struct Level {
  const char* name;
  const Kernels* kernels;
};

// Levels this machine can run, lowest first; the last is the default.
int usable_levels(Level out[4]);
// The level in use: the highest usable, or KLOPF_ISA's. Throws klopf::Error for an unknown or unusable name.
const Level& level();

}  // namespace klopf::cpu
