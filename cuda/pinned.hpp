#pragma once
#include <memory>
#include <mutex>
#include <vector>

#include "runtime.hpp"

namespace klopf::cuda {

// Memory of the host that a device copies from and to by itself, while the host goes on. A piece is used again when it was given back
// and the last copy is done.
class Pinned : public std::enable_shared_from_this<Pinned> {
 public:
  struct Piece {
    char* data;
    uint64_t bytes;
    cudaEvent_t done;
  };
  // Pages that are pinned are lost to others: what is larger is copied while the host waits.
  static constexpr uint64_t largest = uint64_t{1} << 28;

  ~Pinned() {
    for (const Piece& piece : free_) {
      static_cast<void>(cudaEventDestroy(piece.done));
      static_cast<void>(cudaFreeHost(piece.data));
    }
  }
  // Null where there is no such memory.
  std::shared_ptr<Piece> take(uint64_t bytes) {
    const std::lock_guard lock(mutex_);
    const auto held = [self = shared_from_this()](Piece piece) {
      return std::shared_ptr<Piece>(new Piece(piece), [self](Piece* p) {
        const std::lock_guard again(self->mutex_);
        self->free_.push_back(*p);
        delete p;
      });
    };
    auto busy = free_.end();
    for (auto i = free_.begin(); i != free_.end(); ++i) {
      if (i->bytes < bytes || i->bytes / 4 > bytes + least) continue;
      if (cudaEventQuery(i->done) != cudaSuccess) {
        static_cast<void>(cudaGetLastError());
        if (busy == free_.end()) busy = i;
        continue;
      }
      const Piece piece = *i;
      free_.erase(i);
      return held(piece);
    }
    if (total_ + bytes > most && busy != free_.end()) {  // the device is far behind
      const Piece piece = *busy;
      free_.erase(busy);
      check(cudaEventSynchronize(piece.done));
      return held(piece);
    }
    Piece piece{nullptr, least, nullptr};
    while (piece.bytes < bytes) piece.bytes *= 2;
    void* data = nullptr;
    if (cudaMallocHost(&data, piece.bytes) != cudaSuccess) {
      static_cast<void>(cudaGetLastError());
      return nullptr;
    }
    piece.data = static_cast<char*>(data);
    check(cudaEventCreateWithFlags(&piece.done, cudaEventDisableTiming));
    total_ += piece.bytes;
    return held(piece);
  }

 private:
  static constexpr uint64_t least = 1 << 12, most = uint64_t{1} << 29;
  std::mutex mutex_;
  std::vector<Piece> free_;
  uint64_t total_ = 0;
};

}  // namespace klopf::cuda
