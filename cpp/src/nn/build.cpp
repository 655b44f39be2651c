// From a list of layers to nodes: shapes, parameters, fusion, and the units found on the way.
#include <cmath>
#include <cstdint>

#include "klopf/error.hpp"
#include "klopf/network.hpp"

namespace klopf {
namespace {

template <class... F>
struct Overloaded : F... {
  using F::operator()...;
};
template <class... F>
Overloaded(F...) -> Overloaded<F...>;

std::string where(const char* kind, std::size_t layer) { return "[" + std::string(kind) + ", layer " + std::to_string(layer) + "] "; }

int out_size(int in, int kernel, int stride, int padding, const std::string& at) {
  if (kernel > in + 2 * padding)
    throw Error(at + "a kernel of " + std::to_string(kernel) + " does not fit an input of " + std::to_string(in) + " with padding " +
                std::to_string(padding));
  return (in + 2 * padding - kernel) / stride + 1;
}

constexpr int most = 1 << 20;  // keeps sizes of layers and images within 32 bits

void expect_epsilon(const std::string& at, double epsilon) {
  if (!(epsilon > 0 && epsilon < HUGE_VAL)) throw Error(at + "epsilon must be above 0, got " + std::to_string(epsilon));
}

void expect_between(const std::string& at, const char* name, int value, int least) {
  if (value < least || value > most)
    throw Error(at + name + " must be from " + std::to_string(least) + " to " + std::to_string(most) + ", got " + std::to_string(value));
}

std::optional<int> up_to(const std::string& at, const char* name, std::optional<int> asked, int least, int most) {
  if (asked && (*asked < least || *asked > most))
    throw Error(at + name + " must be from " + std::to_string(least) + " to " + std::to_string(most) + ", got " + std::to_string(*asked));
  return asked;
}

// Whether the last activation of these nodes is ReLU, and no normalisation follows it.
bool rectified(const Node* from, const Node* to) {
  bool is = from->kind == Node::Kind::conv_relu_pool;
  for (++from; from < to; ++from) {
    if (from->kind == Node::Kind::activation) is = from->activation == Activation::relu;
    if (from->normalises()) is = false;
  }
  return is;
}

// The shape that flows from layer to layer.
struct Flow {
  int channels, height, width;
  bool image;
  int64_t size() const { return static_cast<int64_t>(channels) * height * width; }
};

}  // namespace

// Room for so many weights.
Ref<float> Network::place(int64_t count) {
  const Ref<float> ref{space_network, static_cast<uint64_t>(weights_count_) * sizeof(float)};
  weights_count_ += (count + 15) / 16 * 16;
  return ref;
}

void Network::add_parameters(Node& node, int64_t rows, int64_t columns, int64_t positions, int64_t channels, std::vector<int64_t> shape) {
  node.parameter = static_cast<int>(parameters_.size());
  const std::string prefix = std::to_string(node.layer) + ".";
  parameters_.push_back({prefix + "weight", std::move(shape), rows, columns, positions, channels, place(rows * columns)});
  parameters_.push_back({prefix + "bias", {rows}, rows, 1, 1, 1, place(rows)});
}

// Gains and biases behind a normalisation: of each number of a sample, or of each channel.
void Network::add_scale(const Node& node, bool by_element) {
  Node scale = node;
  scale.kind = Node::Kind::scale;
  scale.input_size = node.output_size;
  scale.parameter = static_cast<int>(parameters_.size());
  const int64_t channels = node.channels, positions = by_element ? node.output_size / channels : 1;
  std::vector<int64_t> shape{channels * positions};
  if (by_element && node.image) shape = {channels, node.height, node.width};
  for (const char* name : {".weight", ".bias"}) {
    Parameter parameter{std::to_string(node.layer) + name, shape, 1, channels * positions, positions, channels,
                        place(channels * positions)};
    parameter.scales = true;
    parameters_.push_back(parameter);
  }
  nodes_.push_back(scale);
}

void Network::build() {
  Flow flow{channels_, height_, width_, options_.input_shape.size() == 3};
  const auto expect_image = [&](const std::string& at) {
    if (!flow.image) throw Error(at + "needs an image [C, H, W], got a flat input of " + std::to_string(flow.size()));
  };
  if (options_.layers.size() > most_layers)
    throw Error("[network] layers must be at most " + std::to_string(most_layers) + ", got " + std::to_string(options_.layers.size()));
  for (std::size_t i = 0; i < options_.layers.size(); ++i) {
    Node node;
    node.layer = static_cast<int>(i);
    node.input_size = flow.size();
    const auto activation = [&](Activation kind, float slope = 0) {
      node.kind = Node::Kind::activation;
      node.activation = kind;
      node.slope = slope;
    };
    bool affine = false;
    const auto batch_norm = [&](const BatchNorm& l, bool images) {
      const std::string at = where(images ? "batchnorm2d" : "batchnorm1d", i);
      if (images) expect_image(at);
      else if (flow.image) throw Error(at + "needs a flat input: BatchNorm2d() is of images");
      expect_epsilon(at, l.epsilon);
      if (!(l.momentum >= 0 && l.momentum <= 1)) throw Error(at + "momentum must be in [0, 1], got " + std::to_string(l.momentum));
      node.kind = Node::Kind::batch_norm;
      node.epsilon = static_cast<float>(l.epsilon);
      node.momentum = static_cast<float>(l.momentum);
      affine = l.affine;
      const bool one_position = flow.height * flow.width == 1;
      if (!images && !one_position) throw Error(at + "must not follow the Flatten() of images: put BatchNorm2d() before that");
      if (one_position) least_batch_ = 2;
    };
    const bool computes = std::visit(
        Overloaded{
            [&](const Linear& l) {
              const std::string at = where("linear", i);
              expect_between(at, "outputs", l.outputs, 1);
              if (flow.image) throw Error(at + "needs a flat input: put Flatten() before it");
              expect_between(at, "fan_in", l.fan_in, 0);
              node.kind = Node::Kind::linear;
              node.wires = up_to(at, "wires", l.wires, 1, static_cast<int>(flow.size()));
              node.fan_in = l.fan_in ? l.fan_in : l.wires.value_or(0);
              node.living = up_to(at, "living", l.living, 0, l.outputs);
              node.linear = {static_cast<int32_t>(flow.size()), l.outputs};
              // A flattened image arrives as (H, W, C); users see (C, H, W).
              add_parameters(node, l.outputs, flow.size(), flow.size() / flow.channels, flow.channels, {l.outputs, flow.size()});
              flow = {l.outputs, 1, 1, false};
              return true;
            },
            [&](const Conv2d& l) {
              const std::string at = where("conv2d", i);
              expect_image(at);
              expect_between(at, "channels", l.channels, 1);
              expect_between(at, "kernel", l.kernel, 1);
              expect_between(at, "stride", l.stride, 1);
              expect_between(at, "padding", l.padding, 0);
              node.kind = Node::Kind::conv;
              node.living = up_to(at, "living", l.living, 0, l.channels);
              node.conv = {flow.channels,
                           flow.height,
                           flow.width,
                           l.channels,
                           l.kernel,
                           l.kernel,
                           l.stride,
                           l.padding,
                           out_size(flow.height, l.kernel, l.stride, l.padding, at),
                           out_size(flow.width, l.kernel, l.stride, l.padding, at)};
              const int64_t taps = static_cast<int64_t>(l.kernel) * l.kernel;
              add_parameters(node, l.channels, taps * flow.channels, taps, flow.channels, {l.channels, flow.channels, l.kernel, l.kernel});
              flow = {l.channels, node.conv.out_height, node.conv.out_width, true};
              return true;
            },
            [&](const MaxPool2d& l) {
              const std::string at = where("maxpool2d", i);
              expect_image(at);
              expect_between(at, "kernel", l.kernel, 1);
              if (l.kernel > 15) throw Error(at + "kernel must be at most 15, got " + std::to_string(l.kernel));
              expect_between(at, "stride", l.stride, 0);
              node.kind = Node::Kind::max_pool;
              const int stride = l.stride == 0 ? l.kernel : l.stride;
              node.pool = {flow.channels,
                           flow.height,
                           flow.width,
                           l.kernel,
                           stride,
                           out_size(flow.height, l.kernel, stride, 0, at),
                           out_size(flow.width, l.kernel, stride, 0, at)};
              flow.height = node.pool.out_height;
              flow.width = node.pool.out_width;
              return true;
            },
            [&](const Flatten&) {
              flow = {flow.channels, flow.height, flow.width, false};
              return false;
            },
            [&](const ReLU&) { return activation(Activation::relu), true; },
            [&](const LeakyReLU& l) {
              if (!(l.slope > 0 && l.slope < 1))
                throw Error(where("leakyrelu", i) + "slope must be in (0, 1), got " + std::to_string(l.slope));
              return activation(Activation::leaky_relu, static_cast<float>(l.slope)), true;
            },
            [&](const Tanh&) { return activation(Activation::tanh), true; },
            [&](const Sigmoid&) { return activation(Activation::sigmoid), true; },
            [&](const LayerNorm& l) {
              expect_epsilon(where("layernorm", i), l.epsilon);
              node.kind = Node::Kind::layer_norm;
              node.epsilon = static_cast<float>(l.epsilon);
              affine = l.affine;
              return true;
            },
            [&](const BatchNorm1d& l) { return batch_norm(l, false), true; },
            [&](const BatchNorm2d& l) { return batch_norm(l, true), true; },
            [&](const Dropout& l) {
              if (!(l.probability >= 0 && l.probability < 1))
                throw Error(where("dropout", i) + "probability must be in [0, 1), got " + std::to_string(l.probability));
              node.kind = Node::Kind::dropout;
              node.probability = static_cast<float>(l.probability);
              return true;
            },
            [&](const LogStd& l) {
              const std::string at = where("logstd", i);
              if (i + 1 < options_.layers.size()) throw Error(at + "must be the last layer");
              if (!(l.initial >= -80 && l.initial <= 80))
                throw Error(at + "initial must be from -80 to 80, got " + std::to_string(l.initial));
              parameters_.push_back({std::to_string(i) + ".log_std", {flow.size()}, flow.size(), 1, 1, 1, place(flow.size())});
              log_std_ = parameters_.back().ref;
              initial_log_std_ = l.initial;
              return false;
            },
        },
        options_.layers[i]);
    if (!computes) continue;
    if (flow.size() > INT32_MAX)
      throw Error("[network] layer " + std::to_string(i) + " must have at most 2147483647 outputs, got " + std::to_string(flow.size()));
    node.output_size = flow.size();
    node.channels = flow.channels;
    node.height = flow.height;
    node.width = flow.width;
    node.image = flow.image;
    // Conv2d, ReLU, MaxPool2d become one node where windows do not overlap.
    constexpr int most_fused = 8;  // a window's outputs fit a tile of a GPU's products
    const std::size_t n = nodes_.size();
    if (node.kind == Node::Kind::max_pool && n >= 2 && node.pool.kernel == node.pool.stride && node.pool.kernel <= most_fused &&
        nodes_[n - 1].kind == Node::Kind::activation && nodes_[n - 1].activation == Activation::relu &&
        nodes_[n - 2].kind == Node::Kind::conv) {
      Node fused = nodes_[n - 2];
      fused.kind = Node::Kind::conv_relu_pool;
      fused.pool = node.pool;
      fused.output_size = node.output_size;
      fused.height = node.height;
      fused.width = node.width;
      nodes_.resize(n - 2);
      nodes_.push_back(fused);
    } else {
      nodes_.push_back(node);
    }
    if (affine) add_scale(node, node.kind == Node::Kind::layer_norm);
  }
  if (nodes_.empty() || parametric_layers() == 0) throw Error("[network] layers must contain a Linear or a Conv2d");
  if (nodes_.back().output_size != nodes_.back().channels)
    throw Error("[network] layers must end with a Linear, or a Conv2d down to one position");
}

// The units of a layer: its outputs, as the next layer with parameters sees them.
void Network::find_units() {
  std::vector<std::size_t> with_parameters;
  for (std::size_t i = 0; i < nodes_.size(); ++i)
    if (nodes_[i].has_units()) with_parameters.push_back(i);
  const Node& output = nodes_[with_parameters.back()];
  if (output.living || output.wires)
    throw Error(std::string("[network] ") + (output.living ? "living" : "wires") +
                " is for hidden layers: units of the last one are the outputs");
  for (std::size_t k = 0; k + 1 < with_parameters.size(); ++k) {
    const Node &node = nodes_[with_parameters[k]], &next = nodes_[with_parameters[k + 1]], &last = nodes_[with_parameters[k + 1] - 1];
    const Parameter& incoming = parameters_[static_cast<std::size_t>(node.parameter)];
    const Parameter& outgoing = parameters_[static_cast<std::size_t>(next.parameter)];
    Units g{};
    g.units = static_cast<int32_t>(incoming.rows);
    g.fan_in = static_cast<int32_t>(incoming.columns);
    g.positions = last.height * last.width;
    g.outputs = static_cast<int32_t>(outgoing.rows);
    g.taps = static_cast<int32_t>(outgoing.positions);
    g.weights_by_position = next.kind == Node::Kind::linear;
    g.rectified = rectified(&node, &next);
    g.height = last.height;
    g.width = last.width;
    g.place = node.layer;
    g.next_place = next.layer;
    g.key = key(node.layer);
    g.incoming = incoming.ref;
    g.bias = parameters_[static_cast<std::size_t>(node.parameter) + 1].ref;
    g.outgoing = outgoing.ref;
    g.next_bias = parameters_[static_cast<std::size_t>(next.parameter) + 1].ref;
    const std::string prefix = "units." + std::to_string(k) + ".";
    const auto add = [&]<class T>(Ref<T>& ref, const char* name) {
      ref = layout_.add<T>(prefix + name, {g.units});
      layout_.slot(prefix + name).cleared_on_restart = true;
    };
    add(g.age, "age");
    add(g.last_activity, "activity");
    add(g.mean_trace, "mean_activity_trace");
    add(g.mean_activity, "mean_activity");
    add(g.utility_trace, "utility_trace");
    add(g.utility, "utility");
    if (node.living) {
      for (const Node* between = &node; between < &next; ++between)
        if (between->kind == Node::Kind::layer_norm)
          throw Error("[network] units of layer " + std::to_string(g.place) + " cannot come and go (living): LayerNorm behind makes them " +
                      "depend on each other");
      g.vacant = node.vacant;
    }
    g.wires = node.wired;
    g.wire_count = node.wires.value_or(0);
    units_.push_back(g);
  }
}

}  // namespace klopf
