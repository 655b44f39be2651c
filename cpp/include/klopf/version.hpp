#pragma once

namespace klopf {

const char* version();  // "1.2.3"

}  // namespace klopf
