#include "klopf/version.hpp"

namespace klopf {

const char* version() { return KLOPF_VERSION; }

}  // namespace klopf
