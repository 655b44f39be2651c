#include <string.h>

#include <exception>

#include "device.hpp"

namespace klopf::cuda {
namespace {

constexpr uint64_t most_pitch = 0x7fffffff;  // of the runtime's copies in two dimensions

struct Pending final : Fetched {
  std::shared_ptr<const Device> device;  // outlives its copies
  std::shared_ptr<Pinned::Piece> piece;
  const char* wait() override {
    check(cudaEventSynchronize(piece->done));
    return piece->data;
  }
};
struct Copied final : Fetched {
  std::unique_ptr<char[]> data;
  const char* wait() override { return data.get(); }
};

}  // namespace

#if defined(KLOPF_CUDA_EMULATED)
std::string name_of_device(int) { return "emulated on the CPU, for tests"; }
#else
std::string name_of_device(int index) {
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, index));
  return properties.name;
}
#endif

thread_local const Device* Device::captures_ = nullptr;
thread_local cudaStream_t Device::capture_ = nullptr;

Device::Device(int index) : index_(index) {
  const OnDevice now(index_, nullptr);
  check(cudaStreamCreate(&stream_));
}

Device::~Device() {
  static_cast<void>(cudaStreamSynchronize(stream_));
  static_cast<void>(cudaStreamDestroy(stream_));
}

cudaGraph_t Device::capture(const std::function<void()>& work) const {
  const OnDevice now = use();
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  cudaGraph_t graph = nullptr;
  cudaError_t status = cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
  std::exception_ptr error;
  if (status == cudaSuccess) {
    captures_ = this;
    capture_ = stream;
    try {
      work();
    } catch (...) {
      error = std::current_exception();
    }
    captures_ = nullptr;
    status = cudaStreamEndCapture(stream, &graph);
  }
  static_cast<void>(cudaStreamDestroy(stream));
  if (error || status != cudaSuccess) {
    if (graph) static_cast<void>(cudaGraphDestroy(graph));
    static_cast<void>(cudaGetLastError());
    if (error) std::rethrow_exception(error);
  }
  check(status);
  return graph;
}

char* Device::allocate(uint64_t bytes) {
  void* p = nullptr;
  const OnDevice now = use();
  const cudaError_t status = cudaMalloc(&p, bytes);
  if (status == cudaErrorMemoryAllocation) {
    static_cast<void>(cudaGetLastError());
    throw Error("[cuda] out of memory: " + std::to_string((bytes >> 20) + 1) +
                " MiB more are needed; fewer runs or smaller batches take less");
  }
  check(status);
  const cudaError_t cleared = cudaMemsetAsync(p, 0, bytes, now.stream);
  if (cleared != cudaSuccess) release(static_cast<char*>(p));
  check(cleared);
  return static_cast<char*>(p);
}

// Waits for the device. What other streams read, too, may be freed by nothing that does not.
void Device::release(char* p) { static_cast<void>(cudaFree(p)); }

void Device::copy(void* to, uint64_t to_pitch, const void* from, uint64_t from_pitch, uint64_t width, uint64_t rows,
                  cudaMemcpyKind kind) const {
  if (rows > 1 && to_pitch <= most_pitch && from_pitch <= most_pitch)
    return check(cudaMemcpy2DAsync(to, to_pitch, from, from_pitch, width, rows, kind, stream_));
  for (uint64_t row = 0; row < rows; ++row)
    check(
        cudaMemcpyAsync(static_cast<char*>(to) + row * to_pitch, static_cast<const char*>(from) + row * from_pitch, width, kind, stream_));
}

void Device::to_device(char* to, uint64_t to_pitch, const void* from, uint64_t from_pitch, uint64_t width, uint64_t rows) {
  const OnDevice now = use();
  const auto piece = pinned_->take(width * rows);
  if (!piece) {
    copy(to, to_pitch, from, from_pitch, width, rows, cudaMemcpyHostToDevice);
    return check(cudaStreamSynchronize(stream_));
  }
  for (uint64_t row = 0; row < rows; ++row) memcpy(piece->data + row * width, static_cast<const char*>(from) + row * from_pitch, width);
  copy(to, to_pitch, piece->data, width, width, rows, cudaMemcpyHostToDevice);
  check(cudaEventRecord(piece->done, stream_));
}

void Device::to_host(void* to, uint64_t to_pitch, const char* from, uint64_t from_pitch, uint64_t width, uint64_t rows) {
  const OnDevice now = use();
  copy(to, to_pitch, from, from_pitch, width, rows, cudaMemcpyDeviceToHost);
  check(cudaStreamSynchronize(stream_));
}

void Device::copy_within(char* to, uint64_t to_pitch, const void* from, uint64_t from_pitch, uint64_t width, uint64_t rows) {
  const OnDevice now = use();
  copy(to, to_pitch, from, from_pitch, width, rows, cudaMemcpyDeviceToDevice);
}

void Device::wait() const { check(cudaStreamSynchronize(stream_)); }

DlName Device::dlpack_name() const { return {dlpack_type, index_}; }

void Device::let_follow(int64_t stream) const {
  // As the exchange protocol has it: 1 is the default stream, 2 that of the calling thread, else a handle. The runtime's own handles
  // of the first two have these very values.
  const cudaStream_t follower = reinterpret_cast<cudaStream_t>(static_cast<intptr_t>(stream));
  if (follower == stream_) return;
  const OnDevice now = use();
  cudaEvent_t played = nullptr;
  check(cudaEventCreateWithFlags(&played, cudaEventDisableTiming));
  cudaError_t status = cudaEventRecord(played, stream_);
  if (status == cudaSuccess) status = cudaStreamWaitEvent(follower, played, 0);
  static_cast<void>(cudaEventDestroy(played));  // the runtime keeps it as long as it is waited for
  check(status);
}

std::shared_ptr<Fetched> Device::fetch_later(const char* from, uint64_t pitch, uint64_t width, uint64_t rows) {
  const OnDevice now = use();
  if (auto piece = pinned_->take(width * rows)) {
    copy(piece->data, width, from, pitch, width, rows, cudaMemcpyDeviceToHost);
    check(cudaEventRecord(piece->done, stream_));
    auto pending = std::make_shared<Pending>();
    pending->device = shared_from_this();
    pending->piece = std::move(piece);
    return pending;
  }
  auto copied = std::make_shared<Copied>();
  copied->data.reset(new char[width * rows]);
  to_host(copied->data.get(), width, from, pitch, width, rows);
  return copied;
}

}  // namespace klopf::cuda
