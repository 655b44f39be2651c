#pragma once
#include "device.hpp"
#include "klopf/backend.hpp"

namespace klopf::cuda {

// Captured launches, to be launched as one.
class CapturedGraph final : public Graph {
 public:
  CapturedGraph(std::shared_ptr<const Device> device, const std::function<void()>& work) : device_(std::move(device)) {
    const cudaGraph_t graph = device_->capture(work);
    const OnDevice now = device_->use();
    const cudaError_t status = cudaGraphInstantiate(&executable_, graph, 0);
    static_cast<void>(cudaGraphDestroy(graph));
    check(status);
  }
  ~CapturedGraph() override { static_cast<void>(cudaGraphExecDestroy(executable_)); }
  CapturedGraph(const CapturedGraph&) = delete;
  CapturedGraph& operator=(const CapturedGraph&) = delete;
  void play() override {
    const OnDevice now = device_->use();
    check(cudaGraphLaunch(executable_, now.stream));
  }

 private:
  std::shared_ptr<const Device> device_;
  cudaGraphExec_t executable_ = nullptr;
};

}  // namespace klopf::cuda
