#pragma once
#include <optional>

#include "arrays.hpp"

namespace klopf::bindings {

// An array of another library that lies in a device's memory, by the protocol that PyTorch, JAX and CuPy share (DLPack). Contiguous.
struct Foreign {
  py::capsule held;
  const void* data;
  py::dtype type;
  std::vector<py::ssize_t> shape;
  template <class T>
  bool has_type() const {
    return type.is(py::dtype::of<T>());
  }
  py::array to_host(Memory& memory) const;
};
// Absent: it lies in the host's memory, or is no such array. What the other library does to it is done before `memory`'s next plays.
// Throws Error where it lies on another device, is not contiguous, or has a type that NumPy lacks.
std::optional<Foreign> on_device(const char* where, const char* name, const py::object& value, const Memory* memory);

}  // namespace klopf::bindings
