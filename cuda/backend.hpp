#pragma once
#include <memory>
#include <string>

#include "klopf/backend.hpp"

namespace klopf::cuda {

// GPUs that can be used; where there is none, why says the reason.
int device_count(std::string& why);
std::string describe();  // the names of those that can
std::shared_ptr<Backend> make_backend(int device, bool tf32);

}  // namespace klopf::cuda
