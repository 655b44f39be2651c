#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "klopf/later.hpp"
#include "klopf/operations.hpp"

namespace klopf {

enum class Type : uint32_t { float32, float64, int32, int64, uint64, uint8 };
std::size_t size_of(Type type);
const char* name_of(Type type);  // "float32", as NumPy has it
template <class T>
constexpr Type type_of();
template <>
constexpr Type type_of<float>() {
  return Type::float32;
}
template <>
constexpr Type type_of<double>() {
  return Type::float64;
}
template <>
constexpr Type type_of<int32_t>() {
  return Type::int32;
}
template <>
constexpr Type type_of<int64_t>() {
  return Type::int64;
}
template <>
constexpr Type type_of<uint64_t>() {
  return Type::uint64;
}
template <>
constexpr Type type_of<uint8_t>() {
  return Type::uint8;
}

// A named array that every run has.
struct Slot {
  std::string name;
  Type type;
  std::vector<int64_t> shape;  // of one run, as users see it
  uint64_t offset;             // bytes from the start of a run's block
  bool like_weights = false;   // as long as all weights together, and read and written as one array for each parameter
  bool cleared_on_restart = false;
  int64_t positions = 1, channels = 1;  // as of a Parameter, of an array for the weights of a layer
  int64_t count() const;
};

// Where the arrays of a run lie in its block.
class Layout {
 public:
  explicit Layout(uint32_t space) : space_(space) {}
  // Finds the array, or adds it.
  template <class T>
  Ref<T> add(const std::string& name, std::vector<int64_t> shape = {}) {
    return {space_, slots_[index(name, type_of<T>(), std::move(shape))].offset};
  }
  Slot& slot(const std::string& name);
  const std::vector<Slot>& slots() const { return slots_; }
  uint64_t bytes() const { return bytes_; }

 private:
  std::size_t index(const std::string& name, Type type, std::vector<int64_t> shape);
  uint32_t space_;
  std::vector<Slot> slots_;
  uint64_t bytes_ = 0;
};

// Scratch memory, without names.
class WorkLayout {
 public:
  explicit WorkLayout(uint32_t space = space_work) : space_(space) {}
  template <class T>
  Ref<T> take(std::size_t count) {
    const Ref<T> ref{space_, bytes_};
    bytes_ += (count * sizeof(T) + 63) / 64 * 64;
    return ref;
  }
  uint64_t bytes() const { return bytes_ + 256; }  // kernels may read a register past an array's end

 private:
  uint32_t space_;
  uint64_t bytes_ = 0;
};

// What was asked of a device.
class Fetched {
 public:
  virtual ~Fetched() = default;
  virtual const char* wait() = 0;  // its rows, one behind the other
};

// A device's name where libraries exchange arrays (DLPack).
struct DlName {
  int32_t type, index;
};

// Memory of a device, which the host cannot read. Throws Error where there is not enough, or the device fails.
class Memory {
 public:
  virtual ~Memory() = default;
  virtual char* allocate(uint64_t bytes) = 0;  // zeroed
  virtual void release(char* p) = 0;
  // `rows` rows of `width` bytes that begin `pitch` bytes apart. The host's memory may be used again when a call returns.
  virtual void to_device(char* to, uint64_t to_pitch, const void* from, uint64_t from_pitch, uint64_t width, uint64_t rows) = 0;
  virtual void to_host(void* to, uint64_t to_pitch, const char* from, uint64_t from_pitch, uint64_t width, uint64_t rows) = 0;
  // As it is when all that was played before is done, without waiting for that.
  virtual std::shared_ptr<Fetched> fetch_later(const char* from, uint64_t pitch, uint64_t width, uint64_t rows) = 0;
  // Within the device's memory, in the order of plays.
  virtual void copy_within(char* to, uint64_t to_pitch, const void* from, uint64_t from_pitch, uint64_t width, uint64_t rows) = 0;
  virtual void wait() const = 0;  // for all that was played

  // For other libraries on the device: its name, the stream of plays, and that a stream of theirs wait for what was played.
  virtual DlName dlpack_name() const = 0;
  virtual int64_t stream() const = 0;
  virtual void let_follow(int64_t stream) const = 0;
};

// One zeroed block of memory a run (or a thread), each aligned to a cache line. On a device they live there, and in the host's memory
// as well where they are mirrored; whoever is about to read or change one side says so first, and gets it as it should be.
class Blocks {
 public:
  Blocks() = default;
  Blocks(int count, uint64_t bytes, std::shared_ptr<Memory> memory = nullptr, bool mirrored = true);
  // The host's side. Current after on_host(), whose `change` says that it will be written.
  char* block(int i) const { return data_.get() + stride_ * static_cast<uint64_t>(i); }
  template <class T>
  T* at(Ref<T> ref, int i) const {
    return reinterpret_cast<T*>(block(i) + ref.offset);
  }
  void on_host(bool change) const;
  // Where a play finds the first block, which it may change.
  char* to_play() const;
  // One array of every block, [count, n], wherever they are.
  template <class T>
  std::vector<T> fetch(Ref<T> ref, std::size_t n = 1) const {
    std::vector<T> out(n * static_cast<std::size_t>(count_));
    read(ref.offset, n * sizeof(T), out.data());
    return out;
  }
  template <class T>
  Later<std::vector<T>> fetch_later(Ref<T> ref, std::size_t n = 1) const {
    if (newest_ != Newest::device) return fetch(ref, n);
    const std::size_t count = n * static_cast<std::size_t>(count_);
    return Later<std::vector<T>>(
        [count, rows = memory_->fetch_later(device_.get() + ref.offset, stride_, n * sizeof(T), static_cast<uint64_t>(count_))] {
          std::vector<T> out(count);
          std::memcpy(out.data(), rows->wait(), count * sizeof(T));
          return out;
        });
  }
  // Bytes [from, to) of every block.
  Later<std::vector<char>> region_later(uint64_t from, uint64_t to) const {
    return fetch_later(Ref<char>{0, from}, static_cast<std::size_t>(to - from));
  }
  template <class T>
  void put(Ref<T> ref, const T* values, std::size_t n) const {
    write(ref.offset, n * sizeof(T), values);
  }
  template <class T>
  void put(Ref<T> ref, const std::vector<T>& values) const {
    put(ref, values.data(), values.size() / static_cast<std::size_t>(count_));
  }
  int count() const { return count_; }
  uint64_t stride() const { return stride_; }

 private:
  struct Free {
    std::shared_ptr<Memory> memory;  // absent: the host's
    void operator()(char* p) const;
  };
  void read(uint64_t offset, uint64_t width, void* to) const;
  void write(uint64_t offset, uint64_t width, const void* from) const;
  std::shared_ptr<Memory> memory_;
  std::unique_ptr<char, Free> data_, device_;
  uint64_t stride_ = 0;
  int count_ = 0;
  enum class Newest { both, host, device };
  mutable Newest newest_ = Newest::both;
};

// Numbers in a device's memory, contiguous.
struct DeviceArray {
  std::shared_ptr<Memory> memory;
  Type type;
  std::vector<int64_t> shape;
  std::shared_ptr<char> data;
  DeviceArray(std::shared_ptr<Memory> memory, Type type, std::vector<int64_t> shape);
  uint64_t bytes() const;
  // Takes the rows of the first axis, from `first` of the second on, from blocks.
  void take(const Blocks& blocks, Ref<float> ref, int64_t first, int64_t count);
  void copy_to(void* host) const;
};

// Zeroes the arrays that a restart clears, in every run.
void clear_for_restart(const Layout& layout, const Blocks& blocks);

// An array of all runs, as it leaves or enters the engine: [runs, shape...], contiguous.
struct Array {
  std::string name;
  Type type;
  std::vector<int64_t> shape;
  std::vector<char> data;
};

template <class T>
Array array_of(std::string name, std::vector<int64_t> shape, const std::vector<T>& values) {
  const char* first = reinterpret_cast<const char*>(values.data());
  return {std::move(name), type_of<T>(), std::move(shape), {first, first + values.size() * sizeof(T)}};
}

}  // namespace klopf
