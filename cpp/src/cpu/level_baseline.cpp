#define KLOPF_LEVEL baseline
#include "cpu/level.inl"
