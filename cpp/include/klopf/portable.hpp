#pragma once
// Functions marked KLOPF_FN are compiled into every instruction-set level and, where there is one, for the GPU. They are
// forced inline with internal linkage, so that no level's code can be merged into another level's path by the linker.
#if defined(__CUDACC__)
#define KLOPF_FN static __host__ __device__ __forceinline__
#define KLOPF_MEMBER_FN __host__ __device__ __forceinline__
#else
#define KLOPF_FN [[gnu::always_inline]] static inline
#define KLOPF_MEMBER_FN [[gnu::always_inline]] inline
#endif
