#pragma once
#include <cstdint>

namespace klopf {

// Draws images [count, 3, size, size] of one class of the built-in stream: numbers first .. first + count - 1 of the class, which
// depend on (seed, class, number, size) alone.
void synthetic_images(uint64_t seed, uint32_t class_index, int64_t first, int64_t count, int size, uint8_t* out);

}  // namespace klopf
