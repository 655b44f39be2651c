#pragma once
#include <math.h>

#include "klopf/operations.hpp"

// Activations: y = f(x), and the slope f'(x) written with y, so that nothing but outputs is kept. ReLU lets NaN through.
namespace klopf {

struct Relu {
  KLOPF_FN float value(float x, float) { return x < 0 ? 0 : x; }
  KLOPF_FN float slope(float y, float) { return y > 0 ? 1.0f : 0.0f; }
};
struct LeakyRelu {
  KLOPF_FN float value(float x, float negative) { return x < 0 ? negative * x : x; }
  KLOPF_FN float slope(float y, float negative) { return y > 0 ? 1.0f : negative; }
};
struct HyperbolicTangent {
  KLOPF_FN float value(float x, float) { return tanhf(x); }
  KLOPF_FN float slope(float y, float) { return 1 - y * y; }
};
struct LogisticSigmoid {
  KLOPF_FN float value(float x, float) { return 1 / (1 + expf(-x)); }
  KLOPF_FN float slope(float y, float) { return y * (1 - y); }
};

// Calls visit(functor) for the one of a kind.
template <class Visit>
KLOPF_FN void with_activation(Activation kind, Visit visit) {
  switch (kind) {
    case Activation::relu: return visit(Relu{});
    case Activation::leaky_relu: return visit(LeakyRelu{});
    case Activation::tanh: return visit(HyperbolicTangent{});
    case Activation::sigmoid: return visit(LogisticSigmoid{});
  }
}

}  // namespace klopf
