#pragma once
#include <functional>
#include <memory>
#include <string>

#include "klopf/layout.hpp"
#include "pinned.hpp"

namespace klopf::cuda {

std::string name_of_device(int index);

// Makes a device the calling thread's for a while.
class OnDevice {
 public:
  OnDevice(int index, cudaStream_t stream_) : stream(stream_), index_(index) {
    check(cudaGetDevice(&before_));
    if (before_ != index_) check(cudaSetDevice(index_));
  }
  ~OnDevice() {
    if (before_ != index_) static_cast<void>(cudaSetDevice(before_));
  }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;
  const cudaStream_t stream;

 private:
  int index_, before_ = 0;
};

// A device's memory, and the stream in which everything on it is done, in order. Copies from the host go through pinned memory and
// are not waited for.
class Device final : public Memory, public std::enable_shared_from_this<Device> {
 public:
  explicit Device(int index);
  ~Device() override;
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;
  std::string name() const { return name_of_device(index_); }
  // This device and its stream, or the one that the calling thread captures.
  OnDevice use() const { return {index_, captures_ == this ? capture_ : stream_}; }
  // What `work` launches on this device, as a graph. Captured from a stream of its own: others may use the device's meanwhile.
  cudaGraph_t capture(const std::function<void()>& work) const;

  char* allocate(uint64_t bytes) override;
  void release(char* p) override;
  void to_device(char* to, uint64_t to_pitch, const void* from, uint64_t from_pitch, uint64_t width, uint64_t rows) override;
  void to_host(void* to, uint64_t to_pitch, const char* from, uint64_t from_pitch, uint64_t width, uint64_t rows) override;
  std::shared_ptr<Fetched> fetch_later(const char* from, uint64_t pitch, uint64_t width, uint64_t rows) override;
  void copy_within(char* to, uint64_t to_pitch, const void* from, uint64_t from_pitch, uint64_t width, uint64_t rows) override;
  void wait() const override;

  DlName dlpack_name() const override;
  int64_t stream() const override { return static_cast<int64_t>(reinterpret_cast<intptr_t>(stream_)); }
  void let_follow(int64_t stream) const override;

 private:
  void copy(void* to, uint64_t to_pitch, const void* from, uint64_t from_pitch, uint64_t width, uint64_t rows, cudaMemcpyKind kind) const;
  int index_;
  cudaStream_t stream_ = nullptr;
  static thread_local const Device* captures_;
  static thread_local cudaStream_t capture_;
  std::shared_ptr<Pinned> pinned_ = std::make_shared<Pinned>();
};

}  // namespace klopf::cuda
