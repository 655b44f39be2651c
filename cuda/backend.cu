#include "backend.hpp"
#include "common.hpp"
#include "device.hpp"
#include "graph.hpp"
#include "kernels.hpp"

namespace klopf::cuda {
namespace {

constexpr int least_major = 8;  // compute capability that this is built for

class CudaBackend final : public Backend {
 public:
  CudaBackend(int index, bool tf32) : device_(std::make_shared<Device>(index)), tf32_(tf32) {}
#define KLOPF_FORWARD(Type, name)                        \
  void name(const Type& op, const Play& play) override { \
    const OnDevice now = device_->use();                 \
    cuda::name({now.stream, tf32_}, op, play);           \
  }
  KLOPF_OPERATIONS(KLOPF_FORWARD)
#undef KLOPF_FORWARD
  std::string arithmetic() const override { return device_->name() + (tf32_ ? ", tf32" : ", float32"); }
  std::shared_ptr<Memory> memory() const override { return device_; }
  std::shared_ptr<Graph> record(const std::function<void()>& work) override { return std::make_shared<CapturedGraph>(device_, work); }

  using Backend::scratch;
  std::size_t scratch(const ConvBackward& op, int capacity) const override { return conv_backward_scratch(op.shape, capacity); }
  std::size_t scratch(const ConvReluPoolBackward& op, int capacity) const override { return conv_backward_scratch(op.shape, capacity); }
  std::size_t scratch(const UnitUtility& op, int capacity) const override { return unit_utility_scratch(op.group, capacity); }
  std::size_t scratch(const GoalCorrelation& op, int) const override { return goal_correlation_scratch(op); }
  int activity_parts(const Units& group, int capacity) const override { return cuda::activity_parts(group, capacity); }

 private:
  std::shared_ptr<Device> device_;
  bool tf32_;
};

}  // namespace

#if defined(KLOPF_CUDA_EMULATED)
int device_count(std::string&) { return 1; }
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

#endif

std::string describe() {
  std::string why, all;
  const int count = device_count(why);
  for (int i = 0; i < count; ++i) all += (i ? ", " : "") + name_of_device(i);
  return all;
}

std::shared_ptr<Backend> make_backend(int device, bool tf32) { return std::make_shared<CudaBackend>(device, tf32); }

}  // namespace klopf::cuda
