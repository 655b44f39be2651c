#pragma once
// What kernels and the CUDA backend are written against: the CUDA runtime, or, compiled as plain C++, an emulation of the part that is
// used here, with which the kernels' arithmetic and indices are tested where there is no GPU.
#if defined(KLOPF_CUDA_EMULATED)
#include "emulation.hpp"
#else
#include <cuda_runtime.h>
#include <mma.h>

namespace klopf::cuda {

constexpr int dlpack_type = 2;

inline void check(cudaError_t status);

template <class... Parameters, class... Arguments>
void launch(cudaStream_t stream, void (*kernel)(Parameters...), dim3 grid, dim3 block, const Arguments&... arguments) {
  kernel<<<grid, block, 0, stream>>>(arguments...);
  check(cudaGetLastError());
}
template <class... Parameters, class... Arguments>
void launch_apart(cudaStream_t stream, void (*kernel)(Parameters...), dim3 grid, dim3 block, const Arguments&... arguments) {
  launch(stream, kernel, grid, block, arguments...);
}

}  // namespace klopf::cuda
#endif

#include <string>

#include "klopf/error.hpp"

namespace klopf::cuda {

// Where operations go: a device's stream, and whether dense products may round their factors to TF32, for the tensor cores.
struct Queue {
  cudaStream_t stream;
  bool tf32;
};

inline void check(cudaError_t status) {
  if (status == cudaSuccess) return;
  static_cast<void>(cudaGetLastError());  // else the next call would report it again
  throw Error("[cuda] " + std::string(cudaGetErrorString(status)));
}

}  // namespace klopf::cuda
