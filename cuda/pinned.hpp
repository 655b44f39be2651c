#pragma once
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "runtime.hpp"

namespace klopf::cuda {

// Memory of the host that a device copies from and to by itself, while the host goes on. Pieces come in powers of two; one is used
// again when it was given back and its last copy is done.
class Pinned : public std::enable_shared_from_this<Pinned> {
 public:
  struct Piece {
    char* data;
    uint64_t bytes;
    cudaEvent_t done;
  };

  ~Pinned() {
    for (const auto& [bytes, pieces] : free_)
      for (const Piece& piece : pieces) static_cast<void>(cudaEventDestroy(piece.done));
    for (char* data : allocated_) static_cast<void>(cudaFreeHost(data));
  }
  // Null where it is too much to be taken from others, as pinned pages are: then a copy has to be waited for.
  std::shared_ptr<Piece> take(uint64_t bytes) {
    uint64_t size = least;
    while (size < bytes) size *= 2;
    if (size > most / 2) return nullptr;
    const std::lock_guard lock(mutex_);
    std::deque<Piece>& pieces = free_[size];
    if (pieces.empty() || !is_done(pieces.front())) {
      const bool grown = pieces.size() < most_ahead && grow(size, pieces);
      if (pieces.empty()) return nullptr;
      if (!grown) check(cudaEventSynchronize(pieces.front().done));  // the device is far behind
    }
    const Piece piece = pieces.front();
    pieces.pop_front();
    return {new Piece(piece), [self = shared_from_this()](Piece* p) {
              const std::lock_guard again(self->mutex_);
              self->free_[p->bytes].push_back(*p);
              delete p;
            }};
  }

 private:
  static constexpr uint64_t least = 1 << 10, slab = 1 << 16, most = uint64_t{1} << 29;
  static constexpr std::size_t most_ahead = 64;  // pieces of a size whose copies are not done

  static bool is_done(const Piece& piece) {
    if (cudaEventQuery(piece.done) == cudaSuccess) return true;
    static_cast<void>(cudaGetLastError());
    return false;
  }
  // New pieces, at the head of the list; small ones many at a time, as pages are what is pinned.
  bool grow(uint64_t size, std::deque<Piece>& pieces) {
    const uint64_t bytes = size < slab ? slab : size;
    if (total_ + bytes > most) return false;
    void* data = nullptr;
    if (cudaMallocHost(&data, bytes) != cudaSuccess) {
      static_cast<void>(cudaGetLastError());
      return false;
    }
    allocated_.push_back(static_cast<char*>(data));
    total_ += bytes;
    for (uint64_t at = 0; at < bytes; at += size) {
      cudaEvent_t done = nullptr;
      check(cudaEventCreateWithFlags(&done, cudaEventDisableTiming));
      pieces.push_front({static_cast<char*>(data) + at, size, done});
    }
    return true;
  }

  std::mutex mutex_;
  std::map<uint64_t, std::deque<Piece>> free_;  // by size; behind new ones the longest free first
  std::vector<char*> allocated_;
  uint64_t total_ = 0;
};

}  // namespace klopf::cuda
