#include "dlpack.hpp"

#include "module.hpp"

namespace klopf::bindings {
namespace {

// The part of dlpack.h, version 0.8, that is used here.
struct DlDevice {
  int32_t type, index;
};
struct DlType {
  uint8_t code, bits;
  uint16_t lanes;
};
struct DlTensor {
  void* data;
  DlDevice device;
  int32_t dimensions;
  DlType type;
  int64_t *shape, *strides;
  uint64_t byte_offset;
};
struct DlManaged {
  DlTensor tensor;
  void* context;
  void (*release)(DlManaged*);
};
constexpr uint8_t unsigned_code = 1, float_code = 2;
constexpr const char* kinds = "iuf";  // of the codes 0, 1 and 2
constexpr int32_t on_host = 1, pinned_on_host = 3;

struct Exported {
  DeviceArray array;
  DlManaged managed;
};

py::object to_dlpack(const DeviceArray& array, const py::object& stream, const py::object& max_version, const py::object& dl_device,
                     const py::object& copy) {
  static_cast<void>(max_version);  // what a caller understands includes this version
  const DlName at = array.memory->dlpack_name();
  if (!dl_device.is_none() && py::cast<std::pair<int, int>>(dl_device) != std::pair<int, int>{at.type, at.index})
    throw py::buffer_error("[device array] stays on its device; numpy() brings it to the host");
  if (!copy.is_none() && py::cast<bool>(copy)) throw py::buffer_error("[device array] is not copied; numpy() makes a copy");
  const int64_t follower = stream.is_none() ? 1 : py::cast<int64_t>(stream);
  if (follower != -1) array.memory->let_follow(follower);
  auto* exported = new Exported{array, {}};
  DeviceArray& mine = exported->array;
  exported->managed = {{mine.data.get(),
                        {at.type, at.index},
                        static_cast<int32_t>(mine.shape.size()),
                        {mine.type == Type::uint8 ? unsigned_code : float_code, static_cast<uint8_t>(8 * size_of(mine.type)), 1},
                        mine.shape.data(),
                        nullptr,
                        0},
                       exported,
                       [](DlManaged* managed) { delete static_cast<Exported*>(managed->context); }};
  PyObject* capsule = PyCapsule_New(&exported->managed, "dltensor", [](PyObject* object) {
    if (!PyCapsule_IsValid(object, "dltensor")) return;  // a consumer has it
    auto* managed = static_cast<DlManaged*>(PyCapsule_GetPointer(object, "dltensor"));
    managed->release(managed);
  });
  if (!capsule) {
    delete exported;
    throw py::error_already_set();
  }
  return py::reinterpret_steal<py::object>(capsule);
}

AnyArray to_host(const DeviceArray& array) {
  py::array out(py::dtype(std::string(name_of(array.type))), std::vector<py::ssize_t>(array.shape.begin(), array.shape.end()));
  void* values = out.mutable_data();
  const py::gil_scoped_release release;
  array.copy_to(values);
  return out;
}

const char* const doc = "An array in the memory of a device, for other libraries there: torch.from_dlpack(array).";

}  // namespace

std::optional<Foreign> on_device(const char* where, const char* name, const py::object& value, const Memory* memory) {
  if (!memory || py::isinstance<py::array>(value) || !py::hasattr(value, "__dlpack_device__")) return {};
  const auto at = py::cast<std::pair<int, int>>(value.attr("__dlpack_device__")());
  const DlName own = memory->dlpack_name();
  if (at.first != own.type && (at.first == on_host || at.first == pinned_on_host)) return {};
  const std::string start = "[" + std::string(where) + "] " + name;
  if (at.first != own.type || at.second != own.index) throw Error(start + " must be on the network's device, or on the host");
  const py::object given =
      at.first == on_host ? value.attr("__dlpack__")() : value.attr("__dlpack__")(py::arg("stream") = memory->stream());
  Foreign foreign{py::reinterpret_borrow<py::capsule>(given), nullptr, {}, {}};
  const auto* managed = static_cast<DlManaged*>(PyCapsule_GetPointer(foreign.held.ptr(), "dltensor"));
  if (!managed) throw py::error_already_set();
  const DlTensor& tensor = managed->tensor;
  if (tensor.type.lanes != 1 || tensor.type.code > float_code || tensor.type.bits % 8 != 0)
    throw Error(start + " must be of floats or integers where it lies on a device");
  foreign.type = py::dtype(kinds[tensor.type.code] + std::to_string(tensor.type.bits / 8));
  foreign.shape.assign(tensor.shape, tensor.shape + tensor.dimensions);
  int64_t stride = 1;
  for (int i = tensor.dimensions - 1; i >= 0; stride *= tensor.shape[i--])
    if (tensor.strides && tensor.shape[i] > 1 && tensor.strides[i] != stride)
      throw Error(start + " must be contiguous where it lies on a device");
  foreign.data = static_cast<const char*>(tensor.data) + tensor.byte_offset;
  return foreign;
}

py::array Foreign::to_host(Memory& memory) const {
  py::array host(type, shape);
  const uint64_t bytes = static_cast<uint64_t>(host.nbytes());
  memory.to_host(host.mutable_data(), bytes, static_cast<const char*>(data), bytes, bytes, 1);
  return host;
}

void bind_device_array(py::module_& m) {
  const auto none = py::none();
  py::class_<DeviceArray>(m, "DeviceArray", doc)
      .def_property_readonly(
          "shape", [](const DeviceArray& array) { return py::typing::Tuple<py::int_, py::ellipsis>(py::tuple(py::cast(array.shape))); })
      .def("numpy", &to_host, "A copy in the host's memory.")
      .def(
          "__array__",
          [](const DeviceArray& array, const py::object& dtype, const py::object&) {
            const py::array host = to_host(array);
            return dtype.is_none() ? py::object(host) : host.attr("astype")(dtype);
          },
          py::arg("dtype") = none, py::arg("copy") = none)
      .def("__dlpack__", &to_dlpack, py::kw_only(), py::arg("stream") = none, py::arg("max_version") = none, py::arg("dl_device") = none,
           py::arg("copy") = none)
      .def("__dlpack_device__", [](const DeviceArray& array) {
        const DlName at = array.memory->dlpack_name();
        return std::pair<int, int>{at.type, at.index};
      });
}

}  // namespace klopf::bindings
