#include "backend.hpp"
#include "common.hpp"
#include "kernels.hpp"

namespace klopf::cuda {
namespace {

constexpr int least_major = 8;  // compute capability that this is built for

// A device and the stream in which everything on it is done, in order.
class Device final : public Memory {
 public:
  explicit Device(int index) : index_(index) {
    use();
    check(cudaStreamCreate(&stream_));
  }
  ~Device() override { static_cast<void>(cudaStreamDestroy(stream_)); }
  // Makes this device the calling thread's.
  cudaStream_t use() const {
    check(cudaSetDevice(index_));
    return stream_;
  }
  char* allocate(uint64_t bytes) override {
    void* p = nullptr;
    use();
    if (cudaMalloc(&p, bytes) != cudaSuccess) {
      static_cast<void>(cudaGetLastError());
      throw Error("[cuda] out of memory: " + std::to_string((bytes >> 20) + 1) +
                  " MiB more are needed; fewer runs or smaller batches take less");
    }
    check(cudaMemsetAsync(p, 0, bytes, stream_));
    return static_cast<char*>(p);
  }
  void release(char* p) override { static_cast<void>(cudaFree(p)); }
  void to_device(char* to, uint64_t to_pitch, const void* from, uint64_t from_pitch, uint64_t width, uint64_t rows) override {
    copy(to, to_pitch, from, from_pitch, width, rows, cudaMemcpyHostToDevice);
  }
  void to_host(void* to, uint64_t to_pitch, const char* from, uint64_t from_pitch, uint64_t width, uint64_t rows) override {
    copy(to, to_pitch, from, from_pitch, width, rows, cudaMemcpyDeviceToHost);
    check(cudaStreamSynchronize(stream_));
  }

 private:
  void copy(void* to, uint64_t to_pitch, const void* from, uint64_t from_pitch, uint64_t width, uint64_t rows, cudaMemcpyKind kind) const {
    use();
    if (rows == 1) check(cudaMemcpyAsync(to, from, width, kind, stream_));  // of any size, where a pitch has a limit
    else check(cudaMemcpy2DAsync(to, to_pitch, from, from_pitch, width, rows, kind, stream_));
  }
  int index_;
  cudaStream_t stream_ = nullptr;
};

class CudaBackend final : public Backend {
 public:
  CudaBackend(int index, bool tf32) : device_(std::make_shared<Device>(index)), tf32_(tf32) {}
#define KLOPF_FORWARD(Type, name) \
  void name(const Type& op, const Play& play) override { cuda::name({device_->use(), tf32_}, op, play); }
  KLOPF_OPERATIONS(KLOPF_FORWARD)
#undef KLOPF_FORWARD
  std::shared_ptr<Memory> memory() const override { return device_; }

  using Backend::scratch;
  std::size_t scratch(const ConvBackward& op, int capacity) const override { return conv_backward_scratch(op.shape, capacity); }
  std::size_t scratch(const ConvReluPoolBackward& op, int capacity) const override { return conv_backward_scratch(op.shape, capacity); }
  std::size_t scratch(const UnitUtility& op, int capacity) const override { return unit_utility_scratch(op.group, capacity); }
  int activity_parts(const Units& group, int capacity) const override { return cuda::activity_parts(group, capacity); }

 private:
  std::shared_ptr<Device> device_;
  bool tf32_;
};

}  // namespace

#if defined(KLOPF_CUDA_EMULATED)
int device_count(std::string&) { return 1; }
std::string describe() { return "emulated on the CPU, for tests"; }
#else
int device_count(std::string& why) {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess || count == 0) {
    static_cast<void>(cudaGetLastError());
    why = status == cudaSuccess ? "there is no GPU" : cudaGetErrorString(status);
    return 0;
  }
  for (int i = 0; i < count; ++i) {
    int major = 0;
    check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, i));
    if (major >= least_major) continue;
    why = "the GPU has compute capability " + std::to_string(major) + ", at least " + std::to_string(least_major) + " is needed";
    return i;
  }
  return count;
}

std::string describe() {
  std::string why, all;
  const int count = device_count(why);
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp properties;
    check(cudaGetDeviceProperties(&properties, i));
    all += (i ? ", " : "") + std::string(properties.name);
  }
  return all;
}
#endif

std::shared_ptr<Backend> make_backend(int device, bool tf32) { return std::make_shared<CudaBackend>(device, tf32); }

}  // namespace klopf::cuda
