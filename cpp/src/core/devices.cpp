#include "klopf/backend.hpp"
#include "klopf/error.hpp"
#include "klopf/network.hpp"
#if defined(KLOPF_CUDA)
#include "backend.hpp"
#endif

namespace klopf {
namespace {

// How many GPUs can be used, and in `why` the reason where there is none.
int gpus([[maybe_unused]] std::string& why) {
#if defined(KLOPF_CUDA)
  return cuda::device_count(why);
#else
  why = "this klopf is built for the CPU";
  return 0;
#endif
}

}  // namespace

std::string gpu_status() {
#if defined(KLOPF_CUDA)
  std::string why;
  return gpus(why) > 0 ? cuda::describe() : "built, but cannot be used: " + why;
#else
  return "not built (KLOPF_CUDA)";
#endif
}

std::vector<std::string> devices() {
  std::vector<std::string> names{"cpu"};
  std::string why;
  const int count = gpus(why);
  for (int i = 0; i < count; ++i) names.push_back(i == 0 ? "cuda" : "cuda:" + std::to_string(i));
  return names;
}

std::string resolve_device(const std::string& device) {
  std::string why;
  return device != "auto" ? device : gpus(why) > 0 ? "cuda" : "cpu";
}

std::shared_ptr<Backend> make_backend(const std::string& device, const std::string& precision) {
  if (precision != "float32" && precision != "tf32")
    throw Error("[network] precision must be \"float32\" or \"tf32\", got \"" + precision + "\"");
  std::string why;
  const int count = device == "cpu" ? 0 : gpus(why);
  if (device == "cpu") {
    if (precision != "float32") throw Error("[network] precision must be \"float32\" on the CPU, got \"" + precision + "\"");
    return make_cpu_backend();
  }
  int index = device == "cuda" ? 0 : -1;
  if (device.starts_with("cuda:") && device.size() > 5 && device.size() < 9 &&
      device.find_first_not_of("0123456789", 5) == std::string::npos)
    index = std::stoi(device.substr(5));
  if (index < 0) throw Error("[network] device must be \"cpu\", \"cuda\", \"cuda:1\" and so on, or \"auto\", got \"" + device + "\"");
  if (index >= count)
    throw Error("[network] device \"" + device + "\" is not there: " + (count ? "there are " + std::to_string(count) + " GPUs" : why));
#if defined(KLOPF_CUDA)
  return cuda::make_backend(index, precision == "tf32");
#else
  return nullptr;
#endif
}

}  // namespace klopf
