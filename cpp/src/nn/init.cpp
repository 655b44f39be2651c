#include <cmath>

#include "klopf/error.hpp"
#include "klopf/network.hpp"

namespace klopf {
namespace {

// PyTorch's calculate_gain: what keeps the variance through the activation that follows.
double gain(const Node* after, const Node* end) {
  while (after < end && (after->normalises() || after->kind == Node::Kind::dropout)) ++after;
  if (after == end || after->kind != Node::Kind::activation) return 1;
  switch (after->activation) {
    case Activation::relu: return std::sqrt(2.0);
    case Activation::leaky_relu: return std::sqrt(2.0 / (1 + static_cast<double>(after->slope) * after->slope));
    case Activation::tanh: return 5.0 / 3;
    case Activation::sigmoid: return 1;
  }
  return 1;
}

struct Fans {
  double in, out, gain;
};
using Rule = InitialDistribution (*)(const Fans&);
struct Initialiser {
  const char* name;
  Rule rule;
};
InitialDistribution bounds(double weight, double bias = 0, Initial kind = Initial::uniform) {
  return {kind, static_cast<float>(weight), static_cast<float>(bias)};
}

const Initialiser initialisers[] = {
    // He et al. 2015, uniform: bound gain sqrt(3 / fan_in)
    {"kaiming", [](const Fans& f) { return bounds(f.gain * std::sqrt(3 / f.in)); }},
    // PyTorch's default layers: weights and biases within 1 / sqrt(fan_in)
    {"pytorch", [](const Fans& f) { return bounds(1 / std::sqrt(f.in), 1 / std::sqrt(f.in)); }},
    // LeCun et al. 1998, uniform: bound sqrt(3 / fan_in)
    {"lecun", [](const Fans& f) { return bounds(std::sqrt(3 / f.in)); }},
    // Glorot and Bengio 2010: bound sqrt(6 / (fan_in + fan_out))
    {"xavier", [](const Fans& f) { return bounds(std::sqrt(6 / (f.in + f.out))); }},
    // Elsayed et al. 2024: nine tenths zeros, the rest within 1 / sqrt(fan_in)
    {"sparse", [](const Fans& f) { return bounds(1 / std::sqrt(f.in), 0, Initial::sparse); }},
};

}  // namespace

std::vector<std::string> initialiser_names() {
  std::vector<std::string> names;
  for (const Initialiser& i : initialisers) names.emplace_back(i.name);
  return names;
}

InitialDistribution Network::initial(const Node& node, const std::string& name) const {
  const Parameter& weight = parameters_[static_cast<std::size_t>(node.parameter)];
  const bool conv = node.kind != Node::Kind::linear;
  const int64_t taps = conv ? weight.positions : 1;
  const double kaiming_gain = node.kind == Node::Kind::conv_relu_pool ? std::sqrt(2.0) : gain(&node + 1, nodes_.data() + nodes_.size());
  const Fans fans{static_cast<double>(node.fan_in ? node.fan_in : weight.columns), static_cast<double>(weight.rows * taps), kaiming_gain};
  std::string known;
  for (const Initialiser& i : initialisers) {
    if (name == i.name) return i.rule(fans);
    known += (known.empty() ? "" : ", ") + std::string(i.name);
  }
  throw Error("[init] expected one of " + known + ", got \"" + name + "\"");
}

InitialDistribution Network::initial(const Units& group, const std::string& name) const {
  for (const Node& node : nodes_)
    if (node.has_units() && node.layer == group.place) return initial(node, name);
  throw std::logic_error("no node of group");
}

}  // namespace klopf
