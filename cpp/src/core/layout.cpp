#include "klopf/layout.hpp"

#include <cstring>
#include <new>
#include <numeric>

namespace klopf {

std::size_t size_of(Type type) {
  switch (type) {
    case Type::uint8: return 1;
    case Type::float32:
    case Type::int32: return 4;
    default: return 8;
  }
}

const char* name_of(Type type) {
  switch (type) {
    case Type::float32: return "float32";
    case Type::float64: return "float64";
    case Type::int32: return "int32";
    case Type::int64: return "int64";
    case Type::uint64: return "uint64";
    case Type::uint8: return "uint8";
  }
  return "";
}

int64_t Slot::count() const { return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>()); }

std::size_t Layout::index(const std::string& name, Type type, std::vector<int64_t> shape) {
  for (std::size_t i = 0; i < slots_.size(); ++i)
    if (slots_[i].name == name) return i;
  Slot slot{name, type, std::move(shape), bytes_};
  bytes_ += (static_cast<uint64_t>(slot.count()) * size_of(type) + 63) / 64 * 64;
  slots_.push_back(std::move(slot));
  return slots_.size() - 1;
}

Slot& Layout::slot(const std::string& name) {
  for (Slot& slot : slots_)
    if (slot.name == name) return slot;
  throw std::logic_error("no slot " + name);
}

Blocks::Blocks(int count, uint64_t bytes, std::shared_ptr<Memory> memory, bool mirrored)
    : memory_(std::move(memory)), stride_((bytes + 63) / 64 * 64), count_(count) {
  const uint64_t total = stride_ * static_cast<uint64_t>(count) + 64;
  if (memory_) device_ = {memory_->allocate(total), Free{memory_}};
  if (memory_ && !mirrored) {
    newest_ = Newest::device;
    return;
  }
  data_.reset(static_cast<char*>(::operator new(total, std::align_val_t(64))));
  std::memset(data_.get(), 0, total);
}

void Blocks::Free::operator()(char* p) const {
  if (memory) memory->release(p);
  else ::operator delete(p, std::align_val_t(64));
}

void Blocks::on_host(bool change) const {
  if (!memory_) return;
  const uint64_t total = stride_ * static_cast<uint64_t>(count_);
  if (newest_ == Newest::device) memory_->to_host(data_.get(), total, device_.get(), total, total, 1), newest_ = Newest::both;
  if (change) newest_ = Newest::host;
}

char* Blocks::to_play() const {
  if (!memory_) return data_.get();
  const uint64_t total = stride_ * static_cast<uint64_t>(count_);
  if (newest_ == Newest::host) memory_->to_device(device_.get(), total, data_.get(), total, total, 1);
  newest_ = Newest::device;
  return device_.get();
}

void Blocks::read(uint64_t offset, uint64_t width, void* to) const {
  const uint64_t rows = static_cast<uint64_t>(count_);
  if (newest_ == Newest::device) return memory_->to_host(to, width, device_.get() + offset, stride_, width, rows);
  for (int i = 0; i < count_; ++i) std::memcpy(static_cast<char*>(to) + width * static_cast<uint64_t>(i), block(i) + offset, width);
}

void Blocks::write(uint64_t offset, uint64_t width, const void* from) const {
  const uint64_t rows = static_cast<uint64_t>(count_);
  if (newest_ == Newest::device) return memory_->to_device(device_.get() + offset, stride_, from, width, width, rows);
  for (int i = 0; i < count_; ++i) std::memcpy(block(i) + offset, static_cast<const char*>(from) + width * static_cast<uint64_t>(i), width);
  if (memory_) newest_ = Newest::host;
}

DeviceArray::DeviceArray(std::shared_ptr<Memory> memory_, Type type_, std::vector<int64_t> shape_)
    : memory(std::move(memory_)),
      type(type_),
      shape(std::move(shape_)),
      data(memory->allocate(bytes()), [held = memory](char* p) { held->release(p); }) {}

uint64_t DeviceArray::bytes() const {
  return static_cast<uint64_t>(std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>())) * size_of(type);
}

void DeviceArray::take(const Blocks& blocks, Ref<float> ref, int64_t first, int64_t count) {
  const uint64_t rows = static_cast<uint64_t>(shape[0]), pitch = bytes() / rows, one = pitch / static_cast<uint64_t>(shape[1]);
  memory->copy_within(data.get() + static_cast<uint64_t>(first) * one, pitch, blocks.to_play() + ref.offset, blocks.stride(),
                      static_cast<uint64_t>(count) * one, rows);
}

void DeviceArray::copy_to(void* host) const { memory->to_host(host, bytes(), data.get(), bytes(), bytes(), 1); }

void clear_for_restart(const Layout& layout, const Blocks& blocks) {
  blocks.on_host(true);
  for (const Slot& slot : layout.slots())
    if (slot.cleared_on_restart)
      for (int r = 0; r < blocks.count(); ++r)
        std::memset(blocks.block(r) + slot.offset, 0, static_cast<std::size_t>(slot.count()) * size_of(slot.type));
}

}  // namespace klopf
