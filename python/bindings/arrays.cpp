#include "arrays.hpp"

#include <cmath>
#include <cstring>

#include "learn/check.hpp"

namespace klopf::bindings {
namespace {

using Shape = std::vector<py::ssize_t>;

Shape shape_of(const py::array& a) { return {a.shape(), a.shape() + a.ndim()}; }

std::string text(const Shape& shape) {
  std::string out = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) out += (i ? ", " : "") + std::to_string(shape[i]);
  return out + "]";
}

std::string dtype_text(const py::array& a) { return py::str(a.dtype()); }

py::array as_array(const std::string& at, const char* name, const py::object& value) {
  try {
    return py::array::ensure(value) ? py::reinterpret_borrow<py::array>(py::array::ensure(value)) : throw Error("");
  } catch (const std::exception&) {
    PyErr_Clear();
    throw Error(at + name + " must be an array, got " + std::string(py::str(py::type::of(value).attr("__name__"))));
  }
}

// "B, 3, 32, 32": what stands behind the batch axis.
std::string tail_text(const Shape& tail) {
  std::string out = "B";
  for (const py::ssize_t n : tail) out += ", " + std::to_string(n);
  return out;
}

// Checks [B, tail...] or [R, B, tail...] and tells which.
bool per_run(const std::string& at, const char* name, const py::array& a, const Shape& tail, int runs) {
  const Shape shape = shape_of(a);
  const std::size_t behind = tail.size();
  const bool runs_axis = shape.size() == behind + 2;
  const bool fits = (runs_axis || shape.size() == behind + 1) &&
                    std::equal(tail.begin(), tail.end(), shape.end() - static_cast<std::ptrdiff_t>(behind)) &&
                    (!runs_axis || shape[0] == runs) && shape[runs_axis ? 1 : 0] > 0;
  if (!fits)
    throw Error(at + name + " must have shape [" + tail_text(tail) + "] or [R=" + std::to_string(runs) + ", " + tail_text(tail) +
                "] with B at least 1, got " + text(shape));
  return runs_axis;
}

template <class T>
py::array contiguous(const py::array& a) {
  return py::array_t<T, py::array::c_style | py::array::forcecast>(a);
}

void expect_finite(const std::string& at, const char* name, const py::array& a) {
  const float* values = static_cast<const float*>(a.data());
  const py::ssize_t n = a.size();
  // x - x is 0 for finite numbers only; the position is looked for when something is wrong.
  float sum = 0;
  for (py::ssize_t i = 0; i < n; ++i) sum += values[i] - values[i];
  if (sum == 0) return;
  py::ssize_t i = 0;
  while (std::isfinite(values[i])) ++i;
  Shape position;
  for (py::ssize_t axis = a.ndim() - 1, left = i; axis >= 0; left /= a.shape(axis), --axis)
    position.insert(position.begin(), left % a.shape(axis));
  throw Error(at + name + " must be finite, got " + (std::isnan(values[i]) ? "nan" : "inf") + " at " + text(position));
}

std::vector<float> channel_numbers(const std::string& at, const char* name, const py::object& value, int channels) {
  const py::array a = contiguous<float>(as_array(at, name, value));
  const bool one = a.ndim() == 0;
  if (!one && (a.ndim() != 1 || a.shape(0) != channels))
    throw Error(at + name + " must be one number or " + std::to_string(channels) + " (one for each channel), got shape " + shape_text(a));
  expect_finite(at, name, a);
  const float* values = static_cast<const float*>(a.data());
  return one ? std::vector<float>(static_cast<std::size_t>(channels), values[0]) : std::vector<float>(values, values + channels);
}

}  // namespace

std::string shape_text(const py::array& array) { return text(shape_of(array)); }

Input read_samples(const std::string& where, const Network& network, const ArrayLike& x, const OptionalArrayLike& scale,
                   const OptionalArrayLike& offset) {
  const std::string at = "[" + where + "] ";
  Input in;
  py::array a = as_array(at, "x", x);
  const std::string dtype = dtype_text(a);
  if (dtype != "float32" && dtype != "float64" && dtype != "uint8") throw Error(at + "x must be float32, float64 or uint8, got " + dtype);
  Shape tail(network.options().input_shape.begin(), network.options().input_shape.end());
  in.samples.per_run = per_run(at, "x", a, tail, network.runs());
  in.samples.count = a.shape(in.samples.per_run ? 1 : 0);
  if (dtype == "uint8") {
    in.samples.type = InputType::uint8;
    in.x = contiguous<uint8_t>(a);
    if (scale.is_none() || offset.is_none()) throw Error(at + "uint8 x needs scale and offset (float = x * scale + offset)");
  } else {
    in.x = contiguous<float>(a);
    expect_finite(at, "x", in.x);
  }
  in.samples.x = in.x.data();
  if (!scale.is_none()) in.scale = channel_numbers(at, "scale", scale, network.input_channels()), in.samples.scale = in.scale.data();
  if (!offset.is_none()) in.offset = channel_numbers(at, "offset", offset, network.input_channels()), in.samples.offset = in.offset.data();
  return in;
}

void read_targets(const std::string& where, const Network& network, bool classification, const ArrayLike& y, Input& in) {
  const std::string at = "[" + where + "] ";
  const py::array a = as_array(at, "y", y);
  const char kind = a.dtype().kind();
  const py::ssize_t outputs = network.outputs();
  if (classification) {
    if (kind != 'i' && kind != 'u') throw Error(at + "y must be integer class labels for cross_entropy, got " + dtype_text(a));
    in.samples.targets_per_run = per_run(at, "y", a, {}, network.runs());
    const py::array wide = contiguous<int64_t>(a);
    check_labels(where.c_str(), static_cast<const int64_t*>(wide.data()), wide.size(), outputs);
    in.y = contiguous<int32_t>(a);
    in.samples.labels = static_cast<const int32_t*>(in.y.data());
  } else {
    if (kind != 'f') throw Error(at + "y must be float32 or float64, got " + dtype_text(a));
    in.samples.targets_per_run = per_run(at, "y", a, {outputs}, network.runs());
    in.y = contiguous<float>(a);
    expect_finite(at, "y", in.y);
    in.samples.targets = static_cast<const float*>(in.y.data());
  }
  const py::ssize_t count = a.shape(in.samples.targets_per_run ? 1 : 0);
  if (count != in.samples.count)
    throw Error(at + "x and y must have the same number of samples, got " + std::to_string(in.samples.count) + " and " +
                std::to_string(count));
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

std::vector<Array> from_dict(const std::string& where, const ArrayDict& dict) {
  const std::string at = "[" + where + "] ";
  std::vector<Array> out;
  for (const auto& [key, value] : dict) {
    if (!py::isinstance<py::str>(key)) throw Error(at + "names must be strings");
    const std::string name = py::str(key);
    py::array a = as_array(at, ("\"" + name + "\"").c_str(), py::reinterpret_borrow<py::object>(value));
    std::string dtype = dtype_text(a);
    Array array{name, Type::float32, {a.shape(), a.shape() + a.ndim()}, {}};
    bool known = false;
    for (const Type type : {Type::float32, Type::float64, Type::int32, Type::int64, Type::uint64, Type::uint8})
      if (dtype == name_of(type)) array.type = type, known = true;
    if (!known)
      throw Error(at + "\"" + name + "\" has type " + dtype + ", which is not one of float32, float64, int32, int64, uint64, uint8");
    a = py::array::ensure(a, py::array::c_style);
    array.data.resize(static_cast<std::size_t>(a.nbytes()));
    std::memcpy(array.data.data(), a.data(), array.data.size());
    out.push_back(std::move(array));
  }
  return out;
}

}  // namespace klopf::bindings
