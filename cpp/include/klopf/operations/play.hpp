#pragma once
#include <stdint.h>

#include "klopf/portable.hpp"

// Where arrays are and what a step reads: what all operations are written with.
// Nothing of the standard library is included here: these structures reach the files of the instruction-set levels.
namespace klopf {

// Memory comes in spaces. One block of a space belongs to one run (or, for the workspace, to one thread).
enum : uint32_t { space_work = 0, space_learner = 1, space_network = 2, space_epoch = 3, space_agent = 4, space_count = 8 };

template <class T>
struct Ref {
  uint32_t space = space_count;  // space_count: absent
  uint64_t offset = 0;           // bytes
  KLOPF_MEMBER_FN bool present() const { return space != space_count; }
  bool operator==(const Ref&) const = default;
};

enum class InputType : uint32_t { float32, uint8 };

// Where a step reads its samples. Arrays of a caller, valid during the call.
struct Batch {
  const void* x = nullptr;                            // [N, C, H, W]
  const int32_t* labels = nullptr;                    // [N]
  const float* targets = nullptr;                     // [N, O]
  const uint32_t* order = nullptr;                    // positions of the samples in x; absent: first, first + 1, ...
  const float* scale = nullptr;                       // [C]; absent: 1
  const float* offset = nullptr;                      // [C]; absent: 0
  int64_t x_run = 0, targets_run = 0, order_run = 0;  // to the next run's, where one play is of all runs: bytes; samples; numbers
  int64_t first = 0;
  Ref<int64_t> done;  // samples of the epoch that came before, to be added to `first`; for devices that play all runs at once
  int32_t count = 0;
  int32_t total = 0;  // of the batch that these samples are a chunk of: what means divide by
  int32_t place = 0;  // of the first of them in that batch
  InputType type = InputType::float32;
  bool operator==(const Batch&) const = default;
};

// One playing of a list: base addresses of the first blocks and the distance to the next: the next run's, or in the workspace the
// next chunk's of the batch (on devices that play all runs at once: the next run's there too).
struct Play {
  char* base[space_count] = {};
  uint64_t stride[space_count] = {};
  int32_t runs = 1;                    // more only on devices that play all runs at once
  Ref<int32_t> active;                 // there: runs in which this is 0 are left as they are
  int32_t chunks = 1, chunk_size = 0;  // of the batch, where the whole batch is at stake; samples of all chunks but the last
  Batch batch;
  template <class T>
  KLOPF_MEMBER_FN T* at(Ref<T> ref, int block = 0) const {
    return ref.present() ? reinterpret_cast<T*>(base[ref.space] + stride[ref.space] * block + ref.offset) : nullptr;
  }
  KLOPF_MEMBER_FN int32_t count_of(int chunk) const {
    const int32_t left = batch.total - chunk * chunk_size;
    return chunks == 1 || left < chunk_size ? left : chunk_size;
  }
  bool operator==(const Play&) const = default;
};

}  // namespace klopf
