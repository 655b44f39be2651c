#pragma once
#include "device.hpp"
#include "klopf/backend.hpp"

namespace klopf::cuda {

// What was captured from a stream, to be launched as one.
class CapturedGraph final : public Graph {
 public:
  CapturedGraph(std::shared_ptr<const Device> device, const std::function<void()>& work) : device_(std::move(device)) {
    const cudaStream_t stream = device_->use();
    cudaGraph_t graph = nullptr;
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    try {
      work();
    } catch (...) {
      static_cast<void>(cudaStreamEndCapture(stream, &graph));
      if (graph) static_cast<void>(cudaGraphDestroy(graph));
      static_cast<void>(cudaGetLastError());
      throw;
    }
    check(cudaStreamEndCapture(stream, &graph));
    const cudaError_t status = cudaGraphInstantiate(&executable_, graph, 0);
    static_cast<void>(cudaGraphDestroy(graph));
    check(status);
  }
  ~CapturedGraph() override { static_cast<void>(cudaGraphExecDestroy(executable_)); }
  CapturedGraph(const CapturedGraph&) = delete;
  CapturedGraph& operator=(const CapturedGraph&) = delete;
  void play() override { check(cudaGraphLaunch(executable_, device_->use())); }

 private:
  std::shared_ptr<const Device> device_;
  cudaGraphExec_t executable_ = nullptr;
};

}  // namespace klopf::cuda
