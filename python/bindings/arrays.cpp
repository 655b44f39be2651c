#include "arrays.hpp"

#include <bit>
#include <cmath>
#include <cstring>
#include <span>

#include "dlpack.hpp"
#include "learn/check.hpp"

namespace klopf::bindings {
namespace {

using Shape = std::vector<py::ssize_t>;
using Tail = std::span<const int64_t>;  // what stands behind the batch axis

Shape shape_of(const py::array& a) { return {a.shape(), a.shape() + a.ndim()}; }

std::string text(const Shape& shape) {
  std::string out = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) out += (i ? ", " : "") + std::to_string(shape[i]);
  return out + "]";
}

std::string dtype_text(const py::array& a) { return py::str(a.dtype()); }

// Opens an error message.
std::string at(const char* where) { return "[" + std::string(where) + "] "; }

// In native byte order.
template <class T>
bool has_type(const py::array& a) {
  return py::isinstance<py::array_t<T, 0>>(a);
}

py::array as_array(const char* where, const char* name, const py::object& value) {
  if (py::isinstance<py::array>(value)) return py::reinterpret_borrow<py::array>(value);
  if (py::array a = py::array::ensure(value)) return a;
  PyErr_Clear();
  throw Error(at(where) + name + " must be an array, got " + std::string(py::str(py::type::of(value).attr("__name__"))));
}

// "B, 3, 32, 32"
std::string tail_text(Tail tail) {
  std::string out = "B";
  for (const int64_t n : tail) out += ", " + std::to_string(n);
  return out;
}

// Checks [B, tail...] or [R, B, tail...] and tells which.
bool per_run(const char* where, const char* name, const Shape& all, Tail tail, int runs) {
  const std::span shape(all);
  const bool runs_axis = shape.size() == tail.size() + 2;
  const bool fits = (runs_axis || shape.size() == tail.size() + 1) &&
                    std::equal(tail.begin(), tail.end(), shape.last(tail.size()).begin()) && (!runs_axis || shape[0] == runs) &&
                    shape[runs_axis ? 1 : 0] > 0;
  if (!fits)
    throw Error(at(where) + name + " must have shape [" + tail_text(tail) + "] or [R=" + std::to_string(runs) + ", " + tail_text(tail) +
                "] with B at least 1, got " + text(all));
  return runs_axis;
}

// The array itself where nothing is to convert.
template <class T>
py::array contiguous(const py::array& a) {
  if (py::isinstance<py::array_t<T, py::array::c_style>>(a)) return a;
  return py::array_t<T, py::array::c_style | py::array::forcecast>(a);
}

// One more in the exponent overflows into the sign where the exponent is all ones.
bool all_finite(const float* values, py::ssize_t n) {
  using Lanes [[gnu::vector_size(16)]] = uint32_t;
  constexpr uint32_t exponent = 0x7f800000, one = 0x00800000, sign = 0x80000000;
  Lanes any{};
  py::ssize_t i = 0;
  for (Lanes bits; i + 4 <= n; i += 4) {
    std::memcpy(&bits, values + i, sizeof bits);
    any |= (bits & exponent) + one;
  }
  uint32_t rest = any[0] | any[1] | any[2] | any[3];
  for (; i < n; ++i) rest |= (std::bit_cast<uint32_t>(values[i]) & exponent) + one;
  return !(rest & sign);
}

void expect_finite(const char* where, const char* name, const py::array& a) {
  const float* values = static_cast<const float*>(a.data());
  if (all_finite(values, a.size())) return;
  py::ssize_t i = 0;
  while (std::isfinite(values[i])) ++i;
  Shape position;
  for (py::ssize_t axis = a.ndim() - 1, left = i; axis >= 0; left /= a.shape(axis), --axis)
    position.insert(position.begin(), left % a.shape(axis));
  throw Error(at(where) + name + " must be finite, got " + (std::isnan(values[i]) ? "nan" : "inf") + " at " + text(position));
}

std::vector<float> channel_numbers(const char* where, const char* name, const py::object& value, int channels) {
  const py::array a = contiguous<float>(as_array(where, name, value));
  const bool one = a.ndim() == 0;
  if (!one && (a.ndim() != 1 || a.shape(0) != channels))
    throw Error(at(where) + name + " must be one number or " + std::to_string(channels) + " (one for each channel), got shape " +
                shape_text(a));
  expect_finite(where, name, a);
  const float* values = static_cast<const float*>(a.data());
  return one ? std::vector<float>(static_cast<std::size_t>(channels), values[0]) : std::vector<float>(values, values + channels);
}

}  // namespace

std::string shape_text(const py::array& array) { return text(shape_of(array)); }

Input read_samples(const char* where, const Network& network, const ArrayLike& x, const OptionalArrayLike& scale,
                   const OptionalArrayLike& offset) {
  Input in;
  const auto foreign = on_device(where, "x", x, network.backend().memory().get());
  const auto read_shape = [&](const Shape& shape, bool bytes) {
    in.samples.per_run = per_run(where, "x", shape, network.options().input_shape, network.runs());
    in.samples.count = shape[in.samples.per_run ? 1 : 0];
    in.samples.type = bytes ? InputType::uint8 : InputType::float32;
    if (bytes && (scale.is_none() || offset.is_none()))
      throw Error(at(where) + "uint8 x needs scale and offset (float = x * scale + offset)");
  };
  if (foreign) {
    if (!foreign->has_type<float>() && !foreign->has_type<uint8_t>())
      throw Error(at(where) + "x must be float32 or uint8 where it lies on a device, got " + std::string(py::str(foreign->type)));
    read_shape(foreign->shape, foreign->has_type<uint8_t>());
    in.samples.x = foreign->data;
    in.samples.x_on_device = true;
    in.x = foreign->held;
  } else {
    const py::array a = as_array(where, "x", x);
    const bool floats = has_type<float>(a), bytes = !floats && has_type<uint8_t>(a);
    if (!floats && !bytes && !has_type<double>(a)) throw Error(at(where) + "x must be float32, float64 or uint8, got " + dtype_text(a));
    read_shape(shape_of(a), bytes);
    const py::array values = bytes ? contiguous<uint8_t>(a) : contiguous<float>(a);
    if (!bytes) expect_finite(where, "x", values);
    in.samples.x = values.data();
    in.x = values;
  }
  if (!scale.is_none()) in.scale = channel_numbers(where, "scale", scale, network.input_channels()), in.samples.scale = in.scale.data();
  if (!offset.is_none())
    in.offset = channel_numbers(where, "offset", offset, network.input_channels()), in.samples.offset = in.offset.data();
  return in;
}

void read_targets(const char* where, const Network& network, bool classification, int64_t target_size, const ArrayLike& y, Input& in) {
  const std::shared_ptr<Memory> memory = network.backend().memory();
  const auto foreign = on_device(where, "y", y, memory.get());
  const py::array a = foreign ? foreign->to_host(*memory) : as_array(where, "y", y);
  const char kind = a.dtype().kind();
  if (classification) {
    if (kind != 'i' && kind != 'u') throw Error(at(where) + "y must be integer class labels for cross_entropy, got " + dtype_text(a));
    in.samples.targets_per_run = per_run(where, "y", shape_of(a), {}, network.runs());
    const py::array wide = contiguous<int64_t>(a);
    const std::span labels(static_cast<const int64_t*>(wide.data()), static_cast<std::size_t>(wide.size()));
    check_labels(where, labels.data(), wide.size(), network.outputs());
    in.labels.assign(labels.begin(), labels.end());
    in.samples.labels = in.labels.data();
  } else {
    if (kind != 'f') throw Error(at(where) + "y must be float32 or float64, got " + dtype_text(a));
    in.samples.targets_per_run = per_run(where, "y", shape_of(a), {&target_size, 1}, network.runs());
    const py::array values = contiguous<float>(a);
    expect_finite(where, "y", values);
    in.samples.targets = static_cast<const float*>(values.data());
    in.samples.target_size = target_size;
    in.y = values;
  }
  const py::ssize_t count = a.shape(in.samples.targets_per_run ? 1 : 0);
  if (count != in.samples.count)
    throw Error(at(where) + "x and y must have the same number of samples, got " + std::to_string(in.samples.count) + " and " +
                std::to_string(count));
}

PerRun read_numbers(const char* where, const char* name, const py::object& value) {
  const py::array given = py::array::ensure(value);
  if (!given) PyErr_Clear();
  const std::string numbers = "fiu";
  if (!given || numbers.find(given.dtype().kind()) == std::string::npos || given.ndim() > 1 || given.size() == 0)
    throw Error(at(where) + name + " must be a number, or one for each run");
  const py::array_t<double, py::array::c_style | py::array::forcecast> values(given);
  return PerRun(std::vector<double>(values.data(), values.data() + values.size()));
}

std::optional<PerRun> max_norm(const char* where, const OptionalArrayLike& value) {
  if (value.is_none()) return {};
  return read_numbers(where, "max_gradient_norm", value);
}

ArrayDict to_dict(std::vector<Array> arrays) {
  ArrayDict out;
  for (const Array& array : arrays) {
    py::array a(py::dtype(std::string(name_of(array.type))), Shape(array.shape.begin(), array.shape.end()));
    std::memcpy(a.mutable_data(), array.data.data(), array.data.size());
    out[py::str(array.name)] = std::move(a);
  }
  return out;
}

std::vector<Array> from_dict(const char* where, const ArrayDict& dict) {
  std::vector<Array> out;
  for (const auto& [key, value] : dict) {
    if (!py::isinstance<py::str>(key)) throw Error(at(where) + "names must be strings");
    const std::string name = py::str(key);
    py::array a = as_array(where, ("\"" + name + "\"").c_str(), py::reinterpret_borrow<py::object>(value));
    std::string dtype = dtype_text(a);
    Array array{name, Type::float32, {a.shape(), a.shape() + a.ndim()}, {}};
    bool known = false;
    for (const Type type : {Type::float32, Type::float64, Type::int32, Type::int64, Type::uint64, Type::uint8})
      if (dtype == name_of(type)) array.type = type, known = true;
    if (!known)
      throw Error(at(where) + "\"" + name + "\" has type " + dtype + ", which is not one of float32, float64, int32, int64, uint64, uint8");
    a = py::array::ensure(a, py::array::c_style);
    array.data.resize(static_cast<std::size_t>(a.nbytes()));
    std::memcpy(array.data.data(), a.data(), array.data.size());
    out.push_back(std::move(array));
  }
  return out;
}

}  // namespace klopf::bindings
