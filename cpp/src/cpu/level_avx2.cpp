#define KLOPF_LEVEL avx2
#include "cpu/level.inl"
