#pragma once
#include <cstddef>

#include "klopf/operations.hpp"
#include "runtime.hpp"

// One function an operation, in the file of its family.
namespace klopf::cuda {

#define KLOPF_DECLARE(Type, name) void name(const Queue& queue, const Type& op, const Play& play);
KLOPF_OPERATIONS(KLOPF_DECLARE)
#undef KLOPF_DECLARE

std::size_t conv_backward_scratch(const ConvShape& shape, int capacity);

}  // namespace klopf::cuda
