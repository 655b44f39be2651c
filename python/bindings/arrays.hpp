#pragma once
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/typing.h>

#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "klopf/error.hpp"
#include "klopf/hyper.hpp"
#include "klopf/network.hpp"

namespace py = pybind11;

namespace klopf::bindings {

inline bool is_object(PyObject* object) { return object != nullptr; }

// Types that show in Python's signatures what an argument or a result is; the checks are read_samples' and its like.
class ArrayLike : public py::object {
  PYBIND11_OBJECT_DEFAULT(ArrayLike, py::object, is_object)
};
class OptionalArrayLike : public py::object {
  PYBIND11_OBJECT_DEFAULT(OptionalArrayLike, py::object, is_object)
};
class AnyArray : public py::array {
  PYBIND11_OBJECT_DEFAULT(AnyArray, py::array, py::isinstance<py::array>)
};
using ArrayDict = py::typing::Dict<py::str, AnyArray>;
using ArrayList = py::typing::List<AnyArray>;
using MaskList = py::typing::List<py::array_t<bool>>;

std::string shape_text(const py::array& array);

// NumPy arrays as the engine takes them, kept alive for the call. `where` opens error messages: "learner.step".
struct Input {
  Samples samples;
  py::object x, y;  // a py::array would begin as an empty NumPy array
  std::vector<int32_t> labels;
  std::vector<float> scale, offset;
};
// x float32, float64 or uint8, [B, ...] or [R, B, ...]. Checks shape, type and, on the host, that all is finite.
Input read_samples(const char* where, const Network& network, const ArrayLike& x, const OptionalArrayLike& scale,
                   const OptionalArrayLike& offset);
// y integers [B] or [R, B] for classification, else floats [B, O] or [R, B, O].
void read_targets(const char* where, const Network& network, bool classification, int64_t target_size, const ArrayLike& y, Input& input);

// One number, or one for each run.
PerRun read_numbers(const char* where, const char* name, const py::object& value);
std::optional<PerRun> max_norm(const char* where, const OptionalArrayLike& value);

ArrayDict to_dict(std::vector<Array> arrays);
std::vector<Array> from_dict(const char* where, const ArrayDict& dict);

template <class T>
py::array_t<T> to_numpy(const std::vector<T>& values, std::vector<py::ssize_t> shape) {
  py::array_t<T> out(std::move(shape));
  std::copy(values.begin(), values.end(), out.mutable_data());
  return out;
}

template <class T>
using Dense = py::array_t<T, py::array::c_style | py::array::forcecast>;

// An array of this shape, whose numbers are all finite.
template <class T>
Dense<T> read_array(const char* where, const char* name, const ArrayLike& value, const std::vector<py::ssize_t>& shape) {
  const py::array given = py::array::ensure(value);
  if (!given) PyErr_Clear();
  const bool numbers = given && (std::is_same_v<T, uint8_t> ? given.dtype().kind() == 'b'
                                                            : std::string("fiu").find(given.dtype().kind()) != std::string::npos);
  if (!numbers || std::vector<py::ssize_t>(given.shape(), given.shape() + given.ndim()) != shape) {
    std::string text;
    for (const py::ssize_t n : shape) text += (text.empty() ? "" : ", ") + std::to_string(n);
    throw Error("[" + std::string(where) + "] " + name + " must be " + (std::is_same_v<T, uint8_t> ? "booleans" : "numbers") +
                " of shape [" + text + "], got " + (given ? std::string(py::str(given.dtype())) + " " + shape_text(given) : "no array"));
  }
  Dense<T> values(given);
  if constexpr (!std::is_same_v<T, uint8_t>)
    for (py::ssize_t i = 0; i < values.size(); ++i)
      if (!std::isfinite(values.data()[i]))
        throw Error("[" + std::string(where) + "] " + name + " must be finite, got " + (std::isnan(values.data()[i]) ? "nan" : "inf"));
  return values;
}

}  // namespace klopf::bindings

namespace pybind11::detail {

template <>
struct handle_type_name<klopf::bindings::ArrayLike> {
  static constexpr auto name = const_name("numpy.typing.ArrayLike");
};
template <>
struct handle_type_name<klopf::bindings::OptionalArrayLike> {
  static constexpr auto name = const_name("numpy.typing.ArrayLike | None");
};
template <>
struct handle_type_name<klopf::bindings::AnyArray> {
  static constexpr auto name = const_name("numpy.typing.NDArray[typing.Any]");
};

}  // namespace pybind11::detail
