#include "klopf/backend.hpp"

#include "cpu/kernels.hpp"
#include "cpu/units.hpp"
#include "klopf/network.hpp"

namespace klopf {
namespace {

// The CPU's operations, through the table of the instruction-set level in use. A play is always of one run.
class CpuBackend final : public Backend {
 public:
#define KLOPF_FORWARD(Type, name) \
  void name(const Type& op, const Play& play) override { kernels_.name(op, play); }
  KLOPF_HEAVY_OPERATIONS(KLOPF_FORWARD)
#undef KLOPF_FORWARD
  void loss_total(const LossTotal& op, const Play& play) override { cpu::loss_total(op, play); }
  void begin_epoch(const BeginEpoch& op, const Play& play) override { cpu::begin_epoch(op, play); }
  void tally(const Tally& op, const Play& play) override { cpu::tally(op, play); }
  void end_epoch(const EndEpoch& op, const Play& play) override { cpu::end_epoch(op, play); }
  void policy_loss(const PolicyLoss& op, const Play& play) override { cpu::policy_loss(op, play); }
  void draw_action(const DrawAction& op, const Play& play) override { cpu::draw_action(op, play); }
  void curvature_probe(const CurvatureProbe& op, const Play& play) override { cpu::curvature_probe(op, play); }
  void swift_step(const SwiftStep& op, const Play& play) override { cpu::swift_step(op, play); }
  void bound_steps(const BoundSteps& op, const Play& play) override { cpu::bound_steps(op, play); }
  void td_error(const TdError& op, const Play& play) override { cpu::td_error(op, play); }
  void safe_error(const SafeError& op, const Play& play) override { cpu::safe_error(op, play); }
  void policy_gradient(const PolicyGradient& op, const Play& play) override { cpu::policy_gradient(op, play); }
  void choose_action(const ChooseAction& op, const Play& play) override { cpu::choose_action(op, play); }
  void draw_weights(const DrawWeights& op, const Play& play) override { cpu::draw_weights(op, play); }
  void unit_select(const UnitSelect& op, const Play& play) override { cpu::unit_select(op, play); }
  void draw_wires(const DrawWires& op, const Play& play) override { cpu::draw_wires(op, play); }
  void cut_wires(const CutWires& op, const Play& play) override { cpu::cut_wires(op, play); }
  void cut_units(const CutUnits& op, const Play& play) override { cpu::cut_units(op, play); }
  void unit_rewire(const UnitRewire& op, const Play& play) override { cpu::unit_rewire(op, play); }
  void unit_grow(const UnitGrow& op, const Play& play) override { cpu::unit_grow(op, play); }
  void unit_reputation(const UnitReputation& op, const Play& play) override { cpu::unit_reputation(op, play); }
  void select_dormant(const SelectDormant& op, const Play& play) override { cpu::select_dormant(op, play); }
  void select_silent(const SelectSilent& op, const Play& play) override { cpu::select_silent(op, play); }
  void batch_norm_track(const BatchNormTrack& op, const Play& play) override { cpu::batch_norm_track(op, play); }
  void goal_active(const GoalActive& op, const Play& play) override { cpu::goal_active(op, play); }
  void goal_variance(const GoalVariance& op, const Play& play) override { cpu::goal_variance(op, play); }
  void log_events(const LogEvents& op, const Play& play) override { cpu::log_events(op, play); }
  void unit_replace(const UnitReplace& op, const Play& play) override { cpu::unit_replace(op, play); }
  void unit_vacate(const UnitVacate& op, const Play& play) override { cpu::unit_vacate(op, play); }
  void advance(const Advance& op, const Play& play) override { ++*play.at(op.step); }

  std::string arithmetic() const override { return std::string("instruction-set level ") + cpu::level().name; }

  std::size_t scratch(const LinearForward& op, int) const override { return size(kernels_.linear_scratch(op.shape)); }
  std::size_t scratch(const ConvForward& op, int) const override { return size(kernels_.conv_scratch(op.shape)); }
  std::size_t scratch(const ConvReluPoolForward& op, int) const override { return size(kernels_.conv_relu_pool_scratch(op)); }
  std::size_t scratch(const ConvBackward& op, int) const override {
    return size(kernels_.conv_backward_scratch(op.shape, op.shape.out_height * op.shape.out_width));
  }
  std::size_t scratch(const ConvReluPoolBackward& op, int) const override {
    return size(kernels_.conv_backward_scratch(op.shape, op.pooled_height * op.pooled_width));
  }
  std::size_t scratch(const UnitUtility& op, int) const override { return size(kernels_.unit_utility_scratch(op.group)); }
  std::size_t scratch(const GoalCorrelation& op, int capacity) const override {
    const Units& g = op.units.group;
    return size(static_cast<int64_t>(capacity) * g.units + g.fan_in + op.partners);
  }

 private:
  static std::size_t size(int64_t floats) { return static_cast<std::size_t>(floats); }
  const cpu::Kernels& kernels_ = *cpu::level().kernels;
};

}  // namespace

std::shared_ptr<Backend> make_cpu_backend() { return std::make_shared<CpuBackend>(); }

}  // namespace klopf
