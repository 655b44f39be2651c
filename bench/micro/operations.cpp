// Every operation of a step by itself, on memory as the step left it. The list is the one that learners record, so a new operation
// or layer shows up here as soon as a network of networks.hpp uses it.
#include <benchmark/benchmark.h>

#include "learn/record.hpp"
#include "networks.hpp"

namespace klopf::micro {
namespace {

// Multiplications and additions counted as if nothing were zero: nominal.
double nominal(const LinearShape& s) { return 2.0 * s.inputs * s.outputs; }
double nominal(const ConvShape& s) { return 2.0 * s.channels * s.kernel_height * s.kernel_width * s.outputs * s.out_height * s.out_width; }
template <class Op>
double nominal_flop(const Op& op, int batch) {
  if constexpr (requires { nominal(op.shape); }) {
    if constexpr (requires { op.grad_weight; }) return nominal(op.shape) * batch * (op.grad_input.present() ? 2 : 1);
    else return nominal(op.shape) * batch;
  }
  return 0;
}

const char* name(std::monostate) { return ""; }
#define KLOPF_NAME(Type, name_) \
  const char* name(const Type&) { return #name_; }
KLOPF_OPERATIONS(KLOPF_NAME)
#undef KLOPF_NAME

// A learner laid open.
struct Opened {
  std::shared_ptr<Network> net;
  Data data;
  Layout layout{space_learner};
  Blocks learner, work;
  Program program;
  Play play;

  explicit Opened(const Case& of) : net(network(of, 1)), data(of, net->input_size(), net->outputs(), of.batch) {
    WorkLayout memory;
    const Tape tape = net->record(memory, of.batch, true);
    const auto step = layout.add<int64_t>("step");
    const auto alive = layout.add<int32_t>("alive");
    Program observe, update;
    Recording recording{*net, layout, memory, tape, observe, update, step, alive, {}, {}, {}, {}};
    klopf::record(of.optimizer, recording);
    for (const Rule& rule : of.rules) klopf::record(rule, recording);
    update.push_back(Advance{step});
    program = tape.forward;
    program.insert(program.end(), observe.begin(), observe.end());
    program.push_back(Loss{static_cast<LossKind>(choice("", "", of.loss, loss_names())), static_cast<int32_t>(net->outputs()), tape.output,
                           tape.grad_output, memory.take<double>(1), memory.take<int32_t>(1)});
    program.insert(program.end(), tape.backward.begin(), tape.backward.end());
    program.insert(program.end(), update.begin(), update.end());
    learner = Blocks(1, layout.bytes());
    work = Blocks(1, memory.bytes());
    *learner.at(alive, 0) = 1;
    for (const auto& [ref, value] : recording.hyper) *learner.at(ref, 0) = value[0];
    play.base[space_network] = net->blocks().block(0);
    play.base[space_learner] = learner.block(0);
    play.base[space_work] = work.block(0);
    play.batch = net->batch(data.samples, 0, 0, of.batch);
    for (int i = 0; i < 3; ++i) play_program(net->backend(), program, play);
  }
};

}  // namespace

void register_operations() {
  for (const Case& of : cases()) {
    const auto opened = std::make_shared<Opened>(of);
    int number = 0;
    for (const Operation& operation : opened->program)
      std::visit(
          [&](const auto& op) {
            const double flop = nominal_flop(op, of.batch);
            const auto run = [opened, op, flop](benchmark::State& state) {
              for (auto _ : state) call(opened->net->backend(), op, opened->play);
              if (flop > 0)
                state.counters["nominal FLOP/s"] =
                    benchmark::Counter(flop, benchmark::Counter::kIsIterationInvariantRate, benchmark::Counter::kIs1000);
            };
            benchmark::RegisterBenchmark(("operation/" + of.name + "/" + std::to_string(number++) + "." + name(op)).c_str(), run);
          },
          operation);
  }
}

}  // namespace klopf::micro
