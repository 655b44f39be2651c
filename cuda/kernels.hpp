#pragma once
#include <cstddef>

#include "klopf/operations.hpp"
#include "runtime.hpp"

// One function an operation, in the file of its family.
namespace klopf::cuda {

#define KLOPF_DECLARE(Type, name) void name(const Queue& queue, const Type& op, const Play& play);
KLOPF_OPERATIONS(KLOPF_DECLARE)
#undef KLOPF_DECLARE

// What the engine's scratch() and activity_parts() say.
std::size_t conv_backward_scratch(const ConvShape& shape, int capacity);
std::size_t unit_utility_scratch(const Units& group, int capacity);
std::size_t goal_correlation_scratch(const GoalCorrelation& op);
int activity_parts(const Units& group, int capacity);

}  // namespace klopf::cuda
