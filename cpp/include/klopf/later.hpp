#pragma once
#include <functional>
#include <utility>

namespace klopf {

// A result that a device may still be working on.
template <class T>
class Later {
 public:
  Later(T value) : value_(std::move(value)) {}
  explicit Later(std::function<T()> wait) : wait_(std::move(wait)) {}
  // Waits for it if need be. Throws Error where the device failed.
  T& get() {
    if (wait_) {
      value_ = wait_();
      wait_ = nullptr;
    }
    return value_;
  }

 private:
  T value_{};
  std::function<T()> wait_;
};

}  // namespace klopf
