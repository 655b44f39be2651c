// From nodes to the list of operations of a forward and a backward pass.
#include <algorithm>
#include <type_traits>

#include "klopf/network.hpp"

namespace klopf {
namespace {

// Scratch memory is used by one operation at a time: all share the largest.
template <class Op>
void want_scratch(const Backend& backend, const Op& op, int capacity, std::size_t& most) {
  most = std::max(most, backend.scratch(op, capacity));
}

// Where a pass for the curvature keeps squares, and the filters' gradients that it has no use for.
struct Squares {
  Ref<float> inputs, outputs, filters, biases;
};

}  // namespace

Tape Network::record(WorkLayout& work, int capacity, const RecordOptions& what) const {
  const bool training = what.training, curvature = what.curvature;
  Tape tape;
  tape.capacity = capacity;
  const auto samples = [&](int64_t size) { return static_cast<std::size_t>(size) * static_cast<std::size_t>(capacity); };
  const auto size = [](int64_t n) { return static_cast<std::size_t>(n); };
  tape.input = work.take<float>(samples(input_size_));
  tape.forward.push_back(LoadBatch{tape.input, channels_, height_, width_});
  if (training) tape.grads = work.take<float>(size(weights_count_));
  Squares squares;
  if (curvature) {
    int64_t inputs = 0, outputs = 0, filters = 0, biases = 0;
    for (const Node& node : nodes_)
      if (node.parameter >= 0) {
        inputs = std::max(inputs, node.input_size), outputs = std::max(outputs, node.output_size);
        const Parameter& weight = parameters_[size(node.parameter)];
        if (node.kind != Node::Kind::linear)
          filters = std::max(filters, weight.rows * weight.columns), biases = std::max(biases, weight.rows);
      }
    squares = {work.take<float>(samples(inputs)), work.take<float>(samples(outputs)), work.take<float>(size(filters)),
               work.take<float>(size(biases))};
    tape.curvatures = work.take<float>(size(weights_count_));
  }

  std::size_t scratch_size = 0;
  Ref<float> values = tape.input, grad{};  // the gradient of `values`; absent at the input
  Program backward, curved;                // in the order of the forward pass; turned round at the end
  std::size_t seen = 0;
  for (const Node& node : nodes_) {
    const bool parametric = node.parameter >= 0;
    if (node.has_units() && seen++ > 0) {
      tape.activities.push_back(values);
      if (what.errors) tape.errors.push_back(grad);
    }
    if (node.kind == Node::Kind::dropout && !training) continue;
    // In place, unless the values are what an operation before this one needs for its own gradient.
    const Node::Kind before = &node == nodes_.data() ? Node::Kind::max_pool : (&node - 1)->kind;
    const bool needed = before == Node::Kind::activation || before == Node::Kind::layer_norm || before == Node::Kind::batch_norm;
    if (node.kind == Node::Kind::activation && !needed) {
      tape.forward.push_back(ActivationForward{node.activation, node.slope, node.output_size, values, values});
      if (training && grad.present()) {
        // In place too, unless somebody looks at the gradient of outputs.
        const Ref<float> grad_values = what.errors ? work.take<float>(samples(node.output_size)) : grad;
        backward.push_back(ActivationBackward{node.activation, node.slope, node.output_size, values, grad_values, grad});
        curved.push_back(backward.back());
        grad = grad_values;
      }
      continue;
    }
    const Ref<float> out = work.take<float>(samples(node.output_size));
    // Nothing before the first layer with parameters needs a gradient.
    const Ref<float> grad_out = training && (parametric || grad.present()) ? work.take<float>(samples(node.output_size)) : Ref<float>{};
    Ref<float> weight, bias, grad_weight, grad_bias;
    const int64_t weight_count = node.output_size * node.input_size;  // of a linear layer
    if (parametric) {
      weight = parameters_[static_cast<std::size_t>(node.parameter)].ref;
      bias = parameters_[static_cast<std::size_t>(node.parameter) + 1].ref;
      grad_weight = {space_work, tape.grads.offset + weight.offset - weights_.offset};
      grad_bias = {space_work, tape.grads.offset + bias.offset - weights_.offset};
    }
    const auto both = [&](auto forward_op, auto backward_op) {
      if constexpr (requires { forward_op.scratch; }) want_scratch(*backend_, forward_op, capacity, scratch_size);
      tape.forward.push_back(forward_op);
      if (!training) return;
      if (node.wires) backward.push_back(CutWires{weight_count, node.wired, grad_weight});  // lists are played from their ends
      if constexpr (requires { backward_op.scratch; }) want_scratch(*backend_, backward_op, capacity, scratch_size);
      backward.push_back(backward_op);
      if (!curvature) return;
      // Squares of inputs and gradients give the squares of a sample's products, summed (over positions too, as if apart).
      const uint64_t to_curvature = tape.curvatures.offset - tape.grads.offset;
      auto gradient_only = backward_op, squared = backward_op;
      constexpr bool alone = !requires { backward_op.scratch; };  // whether it can do without the weights' gradients
      if constexpr (alone) gradient_only.grad_weight = gradient_only.grad_bias = {};
      else gradient_only.grad_weight = squares.filters, gradient_only.grad_bias = squares.biases;
      squared.input = squares.inputs, squared.grad_output = squares.outputs, squared.grad_input = {};
      squared.grad_weight.offset += to_curvature, squared.grad_bias.offset += to_curvature;
      if (grad.present()) curved.push_back(gradient_only);
      if (node.wires) curved.push_back(CutWires{weight_count, node.wired, squared.grad_weight});
      curved.push_back(squared);
      curved.push_back(Square{node.output_size, grad_out, squares.outputs});
      curved.push_back(Square{node.input_size, values, squares.inputs});
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
        if (grad_out.present()) {
          backward.push_back(MaxPoolBackward{node.pool, grad_out, grad, position});
          curved.push_back(backward.back());
        }
        break;
      }
      case Node::Kind::layer_norm: {
        const Ref<float> inverse_std = work.take<float>(samples(1));
        tape.forward.push_back(LayerNormForward{node.epsilon, node.output_size, values, out, inverse_std});
        if (grad_out.present()) {
          backward.push_back(LayerNormBackward{node.output_size, out, inverse_std, grad_out, grad});
          curved.push_back(backward.back());
        }
        break;
      }
      case Node::Kind::batch_norm: {
        const int32_t positions = node.height * node.width;
        if (!training) {
          tape.forward.push_back(
              BatchNormApply{node.epsilon, node.channels, positions, values, out, node.running_mean, node.running_variance});
          break;
        }
        const auto take = [&] { return work.take<float>(size(node.channels)); };
        const Ref<float> mean = take(), variance = take(), inverse_std = take();
        tape.forward.push_back(BatchNormForward{node.epsilon, node.channels, positions, values, out, mean, variance, inverse_std});
        tape.follow.push_back(
            BatchNormTrack{node.momentum, node.channels, positions, mean, variance, node.running_mean, node.running_variance});
        if (grad_out.present())
          backward.push_back(BatchNormBackward{node.channels, positions, out, inverse_std, grad_out, grad, take(), take()});
        break;
      }
      case Node::Kind::scale: {
        const auto gains = static_cast<int32_t>(parameters_[size(node.parameter)].columns);
        both(ScaleForward{node.output_size, gains, values, weight, bias, out},
             ScaleBackward{node.output_size, gains, values, weight, grad_out, grad_weight, grad_bias, grad});
        break;
      }
      case Node::Kind::dropout: {
        const Ref<uint8_t> kept = work.take<uint8_t>(samples(node.output_size));
        tape.forward.push_back(DropoutForward{node.probability, key(node.layer), node.output_size, values, out, kept, seed_, what.step});
        if (grad_out.present()) {
          backward.push_back(DropoutBackward{node.probability, node.output_size, kept, grad_out, grad});
          curved.push_back(backward.back());
        }
        break;
      }
      case Node::Kind::activation:
        tape.forward.push_back(ActivationForward{node.activation, node.slope, node.output_size, values, out});
        if (grad_out.present()) {
          backward.push_back(ActivationBackward{node.activation, node.slope, node.output_size, out, grad_out, grad});
          curved.push_back(backward.back());
        }
        break;
    }
    values = out;
    grad = grad_out;
  }
  tape.output = values;
  tape.grad_output = grad;
  tape.backward.assign(backward.rbegin(), backward.rend());
  if (curvature) tape.curvature.assign(curved.rbegin(), curved.rend());

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
  give(tape.curvature);
  return tape;
}

}  // namespace klopf
