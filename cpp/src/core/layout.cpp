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

Blocks::Blocks(int count, uint64_t bytes) : stride_((bytes + 63) / 64 * 64), count_(count) {
  const uint64_t total = stride_ * static_cast<uint64_t>(count) + 64;
  data_.reset(static_cast<char*>(::operator new(total, std::align_val_t(64))));
  std::memset(data_.get(), 0, total);
}

void Blocks::Free::operator()(char* p) const { ::operator delete(p, std::align_val_t(64)); }

}  // namespace klopf
