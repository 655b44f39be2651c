#pragma once
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "klopf/error.hpp"
#include "klopf/network.hpp"

namespace py = pybind11;

namespace klopf::bindings {

std::string shape_text(const py::array& array);

// NumPy arrays as the engine takes them, kept alive for the call. `where` opens error messages: "learner.step".
struct Input {
  Samples samples;
  py::array x, y;
  std::vector<float> scale, offset;
};
// x float32, float64 or uint8, [B, ...] or [R, B, ...]. Checks shape, type and that all is finite.
Input read_samples(const std::string& where, const Network& network, const py::object& x, const py::object& scale, const py::object& offset);
// y integers [B] or [R, B] for classification, else floats [B, O] or [R, B, O].
void read_targets(const std::string& where, const Network& network, bool classification, const py::object& y, Input& input);

py::dict to_dict(std::vector<Array> arrays);
std::vector<Array> from_dict(const std::string& where, const py::dict& dict);

template <class T>
py::array_t<T> to_numpy(const std::vector<T>& values, std::vector<py::ssize_t> shape) {
  py::array_t<T> out(std::move(shape));
  std::copy(values.begin(), values.end(), out.mutable_data());
  return out;
}

}  // namespace klopf::bindings
