// From nodes to the list of operations of a forward and a backward pass.
#include <algorithm>

#include "klopf/network.hpp"

namespace klopf {
namespace {

// Scratch memory is used by one operation at a time: all share the largest.
template <class Op>
void want_scratch(const Backend& backend, const Op& op, int capacity, std::size_t& most) {
  most = std::max(most, backend.scratch(op, capacity));
}

}  // namespace

Tape Network::record(WorkLayout& work, int capacity, bool training) const {
  Tape tape;
  tape.capacity = capacity;
  const auto samples = [&](int64_t size) { return static_cast<std::size_t>(size) * static_cast<std::size_t>(capacity); };
  const auto size = [](int64_t n) { return static_cast<std::size_t>(n); };
  tape.input = work.take<float>(samples(input_size_));
  tape.forward.push_back(LoadBatch{tape.input, channels_, height_, width_});
  if (training) tape.grads = work.take<float>(size(weights_count_));

  std::size_t scratch_size = 0;
  Ref<float> values = tape.input, grad{};  // the gradient of `values`; absent at the input
  Program backward;                        // in the order of the forward pass; turned round at the end
  std::size_t seen = 0;
  for (const Node& node : nodes_) {
    const bool parametric = node.parameter >= 0;
    if (parametric && seen++ > 0) tape.activities.push_back(values);
    // In place, unless the values are what an activation before this one needs for its own slope.
    const bool after_activation = &node != nodes_.data() && (&node - 1)->kind == Node::Kind::activation;
    if (node.kind == Node::Kind::activation && !after_activation) {
      tape.forward.push_back(ActivationForward{node.activation, node.slope, node.output_size, values, values});
      if (training && grad.present())
        backward.push_back(ActivationBackward{node.activation, node.slope, node.output_size, values, grad, grad});
      continue;
    }
    const Ref<float> out = work.take<float>(samples(node.output_size));
    // Nothing before the first layer with parameters needs a gradient.
    const Ref<float> grad_out = training && (parametric || grad.present()) ? work.take<float>(samples(node.output_size)) : Ref<float>{};
    Ref<float> weight, bias, grad_weight, grad_bias;
    if (parametric) {
      weight = parameters_[static_cast<std::size_t>(node.parameter)].ref;
      bias = parameters_[static_cast<std::size_t>(node.parameter) + 1].ref;
      grad_weight = {space_work, tape.grads.offset + weight.offset - weights_.offset};
      grad_bias = {space_work, tape.grads.offset + bias.offset - weights_.offset};
    }
    const auto both = [&](auto forward_op, auto backward_op) {
      want_scratch(*backend_, forward_op, capacity, scratch_size);
      tape.forward.push_back(forward_op);
      if (!training) return;
      if constexpr (requires { backward_op.scratch; }) want_scratch(*backend_, backward_op, capacity, scratch_size);
      backward.push_back(backward_op);
    };
    switch (node.kind) {
      case Node::Kind::linear:
        both(LinearForward{node.linear, values, weight, bias, out, {}},
             LinearBackward{node.linear, values, weight, grad_out, grad_weight, grad_bias, grad});
        break;
      case Node::Kind::conv:
        both(ConvForward{node.conv, values, weight, bias, out, {}},
             ConvBackward{node.conv, values, weight, grad_out, grad_weight, grad_bias, grad, {}});
        break;
      case Node::Kind::conv_relu_pool: {
        const Ref<uint8_t> position = work.take<uint8_t>(samples(node.output_size));
        const PoolShape& p = node.pool;
        both(ConvReluPoolForward{node.conv, p.kernel, p.out_height, p.out_width, values, weight, bias, out, {}, position},
             ConvReluPoolBackward{
                 node.conv, p.kernel, p.out_height, p.out_width, values, weight, grad_out, position, grad_weight, grad_bias, grad, {}});
        break;
      }
      case Node::Kind::max_pool: {
        const Ref<uint8_t> position = work.take<uint8_t>(samples(node.output_size));
        tape.forward.push_back(MaxPoolForward{node.pool, values, out, position});
        if (grad_out.present()) backward.push_back(MaxPoolBackward{node.pool, grad_out, grad, position});
        break;
      }
      case Node::Kind::activation:
        tape.forward.push_back(ActivationForward{node.activation, node.slope, node.output_size, values, out});
        if (grad_out.present()) backward.push_back(ActivationBackward{node.activation, node.slope, node.output_size, out, grad_out, grad});
        break;
    }
    values = out;
    grad = grad_out;
  }
  tape.output = values;
  tape.grad_output = grad;
  tape.backward.assign(backward.rbegin(), backward.rend());

  const Ref<float> scratch = work.take<float>(scratch_size);
  const auto give = [&](Program& program) {
    for (Operation& operation : program)
      std::visit(
          [&](auto& op) {
            if constexpr (requires { op.scratch; }) op.scratch = scratch;
          },
          operation);
  };
  give(tape.forward);
  give(tape.backward);
  return tape;
}

}  // namespace klopf
