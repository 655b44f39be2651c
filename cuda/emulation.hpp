#pragma once
// The part of CUDA that the kernels use, on the host: blocks one after the other, the threads of a block as fibers that change at
// __syncthreads. Every other phase goes through the threads in reverse, so that a missing barrier shows. Memory of the "device" is the
// host's, and all is done at once; graphs play launches again with the arguments that they had. For tests only, and slow.
#include <stdint.h>
#include <string.h>
#include <ucontext.h>

#include <csetjmp>
#include <functional>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static thread_local
#define __align__(bytes) __attribute__((aligned(bytes)))

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
inline thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;

typedef int cudaError_t;
typedef void* cudaStream_t;
enum { cudaSuccess = 0, cudaErrorMemoryAllocation = 2, cudaErrorStreamCaptureUnsupported = 900 };
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice };
inline const char* cudaGetErrorString(cudaError_t status) {
  return status == cudaErrorMemoryAllocation ? "out of memory" : status ? "operation not permitted when stream is capturing" : "no error";
}

namespace klopf::cuda {

constexpr int dlpack_type = 1;  // where libraries exchange arrays, memory of the host

// The threads of one block at a time. Contexts are made once for each thread number; after that they change by jumps, which cost no
// system call.
class Fibers {
 public:
  void run(unsigned count, const std::function<void()>& work) {
    work_ = &work;
    while (fibers_.size() < count) fibers_.push_back(std::make_unique<Fiber>());
    for (unsigned i = 0; i < count; ++i) fibers_[i]->done = false;
    bool forward = true;
    for (unsigned left = count; left > 0; forward = !forward)
      for (unsigned k = 0; k < count; ++k) {
        current_ = forward ? k : count - 1 - k;
        if (fibers_[current_]->done) continue;
        threadIdx = thread_index_of(current_);
        go();
        left -= fibers_[current_]->done;
      }
  }
  void yield() {
    if (_setjmp(fibers_[current_]->here) == 0) _longjmp(scheduler_, 1);
  }
  static Fibers& here() {
    static thread_local Fibers fibers;
    return fibers;
  }
  static dim3 thread_index_of(unsigned i) { return {i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y}; }

 private:
  static constexpr std::size_t stack_bytes = 64 * 1024;
  struct Fiber {
    ucontext_t context;
    std::jmp_buf here;
    std::unique_ptr<char[]> stack;
    bool done = false;
  };
  void go() {
    Fiber& fiber = *fibers_[current_];
    if (_setjmp(scheduler_) != 0) return;
    if (fiber.stack) _longjmp(fiber.here, 1);
    fiber.stack.reset(new char[stack_bytes]);
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = stack_bytes;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, &Fibers::live, 0);
    setcontext(&fiber.context);
  }
  static void live() {
    for (Fibers& all = here();; all.yield()) {
      (*all.work_)();
      all.fibers_[all.current_]->done = true;
    }
  }
  std::vector<std::unique_ptr<Fiber>> fibers_;
  const std::function<void()>* work_ = nullptr;
  std::jmp_buf scheduler_;
  unsigned current_ = 0;
};

template <class... Parameters, class... Arguments>
void run_blocks(void (*kernel)(Parameters...), dim3 grid, dim3 block, const Arguments&... arguments) {
  const std::function<void()> work = [&] { kernel(arguments...); };
  gridDim = grid;
  blockDim = block;
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; ++x) {
        blockIdx = dim3(x, y, z);
        Fibers::here().run(block.x * block.y * block.z, work);
      }
}

// The same for kernels whose threads do not meet at barriers.
template <class... Parameters, class... Arguments>
void run_threads(void (*kernel)(Parameters...), dim3 grid, dim3 block, const Arguments&... arguments) {
  gridDim = grid;
  blockDim = block;
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned x = 0; x < grid.x; ++x) {
      blockIdx = dim3(x, 0, z);
      for (unsigned i = 0; i < block.x; ++i) {
        threadIdx = dim3(i);
        kernel(arguments...);
      }
    }
}

// What is launched while a stream is captured.
typedef std::vector<std::function<void()>> Launches;
inline thread_local Launches* captured = nullptr;

inline void now_or_captured(const std::function<void()>& work) {
  if (captured) captured->push_back(work);
  else work();
}
template <class... Parameters, class... Arguments>
void launch(cudaStream_t, void (*kernel)(Parameters...), dim3 grid, dim3 block, const Arguments&... arguments) {
  now_or_captured([=] { run_blocks(kernel, grid, block, arguments...); });
}
template <class... Parameters, class... Arguments>
void launch_apart(cudaStream_t, void (*kernel)(Parameters...), dim3 grid, dim3 block, const Arguments&... arguments) {
  now_or_captured([=] { run_threads(kernel, grid, block, arguments...); });
}

}  // namespace klopf::cuda

inline void __syncthreads() { klopf::cuda::Fibers::here().yield(); }

inline cudaError_t cudaMalloc(void** p, size_t bytes) {
  *p = ::operator new(bytes, std::align_val_t(256), std::nothrow);
  return *p ? cudaSuccess : cudaErrorMemoryAllocation;
}
inline cudaError_t cudaFree(void* p) {
  ::operator delete(p, std::align_val_t(256));
  return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* p, int value, size_t bytes, cudaStream_t) {
  if (klopf::cuda::captured) return cudaErrorStreamCaptureUnsupported;
  memset(p, value, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t) {
  if (klopf::cuda::captured) return cudaErrorStreamCaptureUnsupported;
  memcpy(to, from, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width, size_t rows,
                                     cudaMemcpyKind, cudaStream_t) {
  if (klopf::cuda::captured) return cudaErrorStreamCaptureUnsupported;
  for (size_t i = 0; i < rows; ++i) memcpy(static_cast<char*>(to) + i * to_pitch, static_cast<const char*>(from) + i * from_pitch, width);
  return cudaSuccess;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return klopf::cuda::captured ? cudaErrorStreamCaptureUnsupported : cudaSuccess; }
inline cudaError_t cudaMallocHost(void** p, size_t bytes) { return cudaMalloc(p, bytes); }
inline cudaError_t cudaFreeHost(void* p) { return cudaFree(p); }

typedef void* cudaEvent_t;
enum { cudaEventDisableTiming = 2 };
inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = nullptr;
  return cudaSuccess;
}
inline cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return cudaSuccess; }
inline cudaError_t cudaEventQuery(cudaEvent_t) { return cudaSuccess; }
inline cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaSuccess; }
inline cudaError_t cudaEventDestroy(cudaEvent_t) { return cudaSuccess; }

typedef klopf::cuda::Launches *cudaGraph_t, *cudaGraphExec_t;
enum cudaStreamCaptureMode { cudaStreamCaptureModeThreadLocal };
inline cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode) {
  klopf::cuda::captured = new klopf::cuda::Launches;
  return cudaSuccess;
}
inline cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t* graph) {
  *graph = std::exchange(klopf::cuda::captured, nullptr);
  return cudaSuccess;
}
inline cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  *executable = new klopf::cuda::Launches(*graph);
  return cudaSuccess;
}
inline cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t) {
  for (const auto& work : *executable) work();
  return cudaSuccess;
}
inline cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
inline cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) { return cudaGraphDestroy(executable); }
inline cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  *stream = nullptr;
  return cudaSuccess;
}
enum { cudaStreamNonBlocking = 1 };
inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) { return cudaStreamCreate(stream); }
inline cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
inline cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
inline cudaError_t cudaGetLastError() { return cudaSuccess; }

// Tensor cores: what a warp does together, its first thread does alone.
namespace nvcuda::wmma {

struct matrix_a;
struct matrix_b;
struct accumulator;
struct row_major;
struct col_major;
namespace precision {
struct tf32;
}
enum layout_t { mem_row_major };

template <class Use, int M, int N, int K, class Type, class Layout = void>
struct fragment {
  static constexpr int num_elements = M * N > M* K ? M * N : M * K;
  float x[num_elements] = {};
};
inline bool does() { return threadIdx.x % 32 == 0; }
inline float __float_to_tf32(float x) {  // ten bits behind the point, to nearest
  uint32_t bits;
  memcpy(&bits, &x, 4);
  if ((bits & 0x7F800000u) != 0x7F800000u) bits = (bits + 0x1000u) & ~0x1FFFu;
  memcpy(&x, &bits, 4);
  return x;
}
template <class F>
void fill_fragment(F& f, float value) {
  for (float& x : f.x) x = value;
}
template <int M, int N, int K, class T>
void load_matrix_sync(fragment<matrix_a, M, N, K, T, col_major>& f, const float* p, unsigned stride) {
  for (int k = 0; does() && k < K; ++k)
    for (int m = 0; m < M; ++m) f.x[m * K + k] = p[k * stride + m];
}
template <int M, int N, int K, class T>
void load_matrix_sync(fragment<matrix_b, M, N, K, T, row_major>& f, const float* p, unsigned stride) {
  for (int k = 0; does() && k < K; ++k)
    for (int n = 0; n < N; ++n) f.x[k * N + n] = p[k * stride + n];
}
template <int M, int N, int K, class A, class B>
void mma_sync(fragment<accumulator, M, N, K, float>& d, const A& a, const B& b, const fragment<accumulator, M, N, K, float>& c) {
  for (int m = 0; does() && m < M; ++m)
    for (int n = 0; n < N; ++n) {
      float sum = c.x[m * N + n];
      for (int k = 0; k < K; ++k) sum = __builtin_fmaf(a.x[m * K + k], b.x[k * N + n], sum);
      d.x[m * N + n] = sum;
    }
}
template <int M, int N, int K>
void store_matrix_sync(float* p, const fragment<accumulator, M, N, K, float>& f, unsigned stride, layout_t) {
  for (int m = 0; does() && m < M; ++m)
    for (int n = 0; n < N; ++n) p[m * stride + n] = f.x[m * N + n];
}

}  // namespace nvcuda::wmma
