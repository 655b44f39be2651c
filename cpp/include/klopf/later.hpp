#pragma once
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

namespace klopf {

// A result that a device may still be working on. Copies share it; threads may read it at once.
template <class T>
class Later {
 public:
  Later(T value) : value_(std::move(value)) {}
  explicit Later(std::function<T()> wait) : pending_(std::make_shared<Pending>()) { pending_->wait = std::move(wait); }
  // Waits for it if need be. Throws Error where the device failed.
  T& get() {
    if (!pending_) return *value_;
    const std::lock_guard lock(pending_->mutex);
    if (!pending_->value) {
      pending_->value = pending_->wait();
      pending_->wait = nullptr;
    }
    return *pending_->value;
  }

 private:
  struct Pending {
    std::mutex mutex;
    std::function<T()> wait;
    std::optional<T> value;
  };
  std::optional<T> value_;
  std::shared_ptr<Pending> pending_;
};

}  // namespace klopf
