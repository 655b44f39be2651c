#define KLOPF_LEVEL avx512
#include "cpu/level.inl"
