// Arrays of all runs, out of the blocks and into them.
#include <algorithm>
#include <cstring>
#include <map>

#include "klopf/error.hpp"
#include "klopf/network.hpp"

namespace klopf {
namespace {

std::string text(const std::vector<int64_t>& shape) {
  std::string out = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) out += (i ? ", " : "") + std::to_string(shape[i]);
  return out + "]";
}

// One array as users see it, and where it lies in a run's block. The engine's [rows, positions, channels] is [rows, channels,
// positions] outside.
struct View {
  std::string name;
  Type type;
  std::vector<int64_t> shape;
  uint64_t offset;
  int64_t rows, positions, channels;
  std::size_t bytes() const { return static_cast<std::size_t>(rows * positions * channels) * size_of(type); }
};

std::vector<View> views(const Layout& layout, const std::vector<Parameter>& parameters) {
  std::vector<View> all;
  for (const Slot& slot : layout.slots()) {
    if (!slot.like_weights) {
      all.push_back(
          {slot.name, slot.type, slot.shape, slot.offset, slot.count() / (slot.positions * slot.channels), slot.positions, slot.channels});
      continue;
    }
    const std::string prefix = slot.name == "weights" ? "" : slot.name + ".";
    const uint64_t start = parameters.empty() ? 0 : parameters[0].ref.offset;
    for (const Parameter& p : parameters)  // 32-bit words all
      all.push_back({prefix + p.name, slot.type, p.shape, slot.offset + p.ref.offset - start, p.rows, p.positions, p.channels});
  }
  return all;
}

template <class Move>
void each_element(const View& view, Move move) {
  for (int64_t row = 0; row < view.rows; ++row)
    for (int64_t position = 0; position < view.positions; ++position)
      for (int64_t channel = 0; channel < view.channels; ++channel)
        move((row * view.positions + position) * view.channels + channel, (row * view.channels + channel) * view.positions + position);
}

std::vector<int64_t> with_runs(int runs, const std::vector<int64_t>& shape) {
  std::vector<int64_t> all{runs};
  all.insert(all.end(), shape.begin(), shape.end());
  return all;
}

}  // namespace

std::vector<Array> read_slots(const Layout& layout, const Blocks& blocks, const std::vector<Parameter>& parameters) {
  std::vector<Array> out;
  blocks.on_host(false);
  for (const View& view : views(layout, parameters)) {
    Array array{view.name, view.type, with_runs(blocks.count(), view.shape),
                std::vector<char>(view.bytes() * static_cast<std::size_t>(blocks.count()))};
    for (int r = 0; r < blocks.count(); ++r) {
      const char* inside = blocks.block(r) + view.offset;
      char* outside = array.data.data() + static_cast<std::size_t>(r) * view.bytes();
      if (view.positions == 1 || view.channels == 1) {
        std::memcpy(outside, inside, view.bytes());
        continue;
      }
      const std::size_t size = size_of(view.type);
      each_element(view, [&](int64_t in, int64_t to) {
        std::memcpy(outside + static_cast<std::size_t>(to) * size, inside + static_cast<std::size_t>(in) * size, size);
      });
    }
    out.push_back(std::move(array));
  }
  return out;
}

void check_slots(const Layout& layout, const Blocks& blocks, const std::vector<Parameter>& parameters, const std::vector<Array>& arrays,
                 const char* where) {
  const std::string at = "[" + std::string(where) + "] ";
  const std::vector<View> known = views(layout, parameters);
  std::map<std::string, const Array*> given;
  for (const Array& array : arrays)
    if (!given.emplace(array.name, &array).second) throw Error(at + "\"" + array.name + "\" is given twice");
  for (const View& view : known) {
    const auto found = given.find(view.name);
    if (found == given.end()) throw Error(at + "\"" + view.name + "\" is missing");
    const Array& array = *found->second;
    const std::vector<int64_t> shape = with_runs(blocks.count(), view.shape);
    if (array.shape != shape || array.type != view.type)
      throw Error(at + "\"" + view.name + "\" must be " + name_of(view.type) + " " + text(shape) + ", got " + name_of(array.type) + " " +
                  text(array.shape));
    const std::size_t bytes = view.bytes() * static_cast<std::size_t>(blocks.count());
    if (array.data.size() != bytes)
      throw Error(at + "\"" + view.name + "\" must have " + std::to_string(bytes) + " bytes, got " + std::to_string(array.data.size()));
  }
  if (given.size() != known.size())
    for (const auto& [name, array] : given) {
      bool expected = false;
      for (const View& view : known) expected = expected || view.name == name;
      if (!expected) throw Error(at + "does not know \"" + name + "\"");
    }
}

void write_slots(const Layout& layout, const Blocks& blocks, const std::vector<Parameter>& parameters, const std::vector<Array>& arrays,
                 const char* where) {
  check_slots(layout, blocks, parameters, arrays, where);
  blocks.on_host(true);
  for (const View& view : views(layout, parameters)) {
    const Array& array = *std::find_if(arrays.begin(), arrays.end(), [&](const Array& a) { return a.name == view.name; });
    const std::size_t size = size_of(view.type);
    for (int r = 0; r < blocks.count(); ++r) {
      char* inside = blocks.block(r) + view.offset;
      const char* outside = array.data.data() + static_cast<std::size_t>(r) * view.bytes();
      each_element(view, [&](int64_t to, int64_t from) {
        std::memcpy(inside + static_cast<std::size_t>(to) * size, outside + static_cast<std::size_t>(from) * size, size);
      });
    }
  }
}

}  // namespace klopf
