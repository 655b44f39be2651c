#pragma once
#include <stdexcept>
#include <string>

namespace klopf {

// Every mistake of a user. The message is one line: "[where] expected ..., got ...".
class Error : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

}  // namespace klopf
