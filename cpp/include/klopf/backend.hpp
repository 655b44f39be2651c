#pragma once
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "klopf/layout.hpp"

namespace klopf {

// Plays that were recorded, with all their pointers and numbers, to be played again at once.
class Graph {
 public:
  virtual ~Graph() = default;
  virtual void play() = 0;
};

// The whole hardware contract: one function an operation, of the same name on every device. A backend that lacks one is
// abstract and does not compile.
class Backend {
 public:
  virtual ~Backend() = default;
#define KLOPF_DECLARE(Type, name) virtual void name(const Type& op, const Play& play) = 0;
  KLOPF_OPERATIONS(KLOPF_DECLARE)
#undef KLOPF_DECLARE

  // What decides about the last bits of results: an instruction-set level, or a GPU and its precision.
  virtual std::string arithmetic() const = 0;

  // Null: the host's memory, and a play is of one run. Else of all runs at once, whose blocks live there.
  virtual std::shared_ptr<Memory> memory() const { return nullptr; }

  // What `work` plays, which is recorded and not done. Null where there is nothing to gain.
  virtual std::shared_ptr<Graph> record(const std::function<void()>&) { return nullptr; }

  // Floats of scratch memory that these operations want for batches up to a size.
  virtual std::size_t scratch(const LinearForward&, int) const { return 0; }
  virtual std::size_t scratch(const ConvForward&, int) const { return 0; }
  virtual std::size_t scratch(const ConvBackward&, int) const { return 0; }
  virtual std::size_t scratch(const ConvReluPoolForward&, int) const { return 0; }
  virtual std::size_t scratch(const ConvReluPoolBackward&, int) const { return 0; }
  virtual std::size_t scratch(const UnitUtility&, int) const { return 0; }
  virtual std::size_t scratch(const GoalCorrelation&, int) const { return 0; }
  // Parts in which it sums the activities of batches up to a size.
  virtual int activity_parts(const Units&, int) const { return 1; }
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

// Devices by name: "cpu", "cuda" (the same as "cuda:0"), "cuda:1", ...; precision: of dense products, "float32", or on GPUs "tf32".
// Throws Error.
std::shared_ptr<Backend> make_backend(const std::string& device, const std::string& precision);
std::string resolve_device(const std::string& device);  // "auto": the first GPU, or the CPU
std::vector<std::string> devices();
std::string gpu_status();  // what was built, what can be used, and why not

}  // namespace klopf
