#pragma once
#include <cstddef>
#include <variant>
#include <vector>

#include "klopf/operations.hpp"

namespace klopf {

// The whole hardware contract: one function an operation, of the same name on every device. A backend that lacks one is
// abstract and does not compile.
class Backend {
 public:
  virtual ~Backend() = default;
#define KLOPF_DECLARE(Type, name) virtual void name(const Type& op, const Play& play) = 0;
  KLOPF_OPERATIONS(KLOPF_DECLARE)
#undef KLOPF_DECLARE

  // Floats of scratch memory that these operations want.
  virtual std::size_t scratch(const LinearForward& op) const = 0;
  virtual std::size_t scratch(const ConvForward& op) const = 0;
  virtual std::size_t scratch(const ConvBackward& op) const = 0;
  virtual std::size_t scratch(const ConvReluPoolForward& op) const = 0;
  virtual std::size_t scratch(const ConvReluPoolBackward& op) const = 0;
  virtual std::size_t scratch(const UnitUtility& op) const = 0;
};

#define KLOPF_ALTERNATIVE(Type, name) , Type
// clang-format off
using Operation = std::variant<std::monostate KLOPF_OPERATIONS(KLOPF_ALTERNATIVE)>;
// clang-format on
#undef KLOPF_ALTERNATIVE

using Program = std::vector<Operation>;

inline void call(Backend&, std::monostate, const Play&) {}
#define KLOPF_CALL(Type, name) \
  inline void call(Backend& backend, const Type& op, const Play& play) { backend.name(op, play); }
KLOPF_OPERATIONS(KLOPF_CALL)
#undef KLOPF_CALL

inline void play_program(Backend& backend, const Program& program, const Play& play) {
  for (const Operation& operation : program) std::visit([&](const auto& op) { call(backend, op, play); }, operation);
}

}  // namespace klopf
