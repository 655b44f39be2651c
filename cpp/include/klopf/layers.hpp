#pragma once
#include <optional>
#include <string>
#include <variant>
#include <vector>

// Layers of a sequential network. Each lists its fields once; Python's constructors, repr and saved files follow from that.
namespace klopf {

struct Linear {
  int outputs = 0, fan_in = 0;
  std::optional<int> living{}, wires{};
  template <class F>
  static void fields(F&& f) {
    f.required("outputs", &Linear::outputs, "number of units");
    f("fan_in", &Linear::fan_in, "inputs that the initial distribution counts; 0: those there are");
    f.optional("living", &Linear::living,
               "how many of its units live at birth, where others may be added and units removed; None: all, always");
    f.optional("wires", &Linear::wires, "inputs that each of its units listens to, drawn at random, which klopf.Rewire changes; None: all");
  }
};

struct Conv2d {
  int channels = 0, kernel = 0, stride = 1, padding = 0;
  std::optional<int> living{};
  template <class F>
  static void fields(F&& f) {
    f.required("channels", &Conv2d::channels, "number of filters (units)");
    f.required("kernel", &Conv2d::kernel, "height and width of a filter");
    f("stride", &Conv2d::stride, "distance between neighbouring patches");
    f("padding", &Conv2d::padding, "zeros added on each side");
    f.optional("living", &Conv2d::living,
               "how many of its filters live at birth, where others may be added and filters removed; None: all, always");
  }
};

struct MaxPool2d {
  int kernel = 0, stride = 0;
  template <class F>
  static void fields(F&& f) {
    f.required("kernel", &MaxPool2d::kernel, "height and width of a window");
    f("stride", &MaxPool2d::stride, "distance between neighbouring windows; 0: the kernel's size");
  }
};

struct Flatten {
  template <class F>
  static void fields(F&&) {}
};

struct ReLU {
  template <class F>
  static void fields(F&&) {}
};

struct LeakyReLU {
  double slope = 0.01;
  template <class F>
  static void fields(F&& f) {
    f("slope", &LeakyReLU::slope, "slope for negative inputs, in (0, 1)");
  }
};

struct Tanh {
  template <class F>
  static void fields(F&&) {}
};

struct Sigmoid {
  template <class F>
  static void fields(F&&) {}
};

struct LayerNorm {
  double epsilon = 1e-5;
  bool affine = true;
  template <class F>
  static void fields(F&& f) {
    f("epsilon", &LayerNorm::epsilon, "added to the variance before its root");
    f("affine", &LayerNorm::affine, "whether a gain and a bias for each number follow, which are learned");
  }
};

struct BatchNorm {
  double epsilon = 1e-5, momentum = 0.1;
  bool affine = true;
  template <class F>
  static void fields(F&& f) {
    f("epsilon", &BatchNorm::epsilon, "added to the variance before its root");
    f("momentum", &BatchNorm::momentum, "share of a batch in the running mean and variance, in [0, 1]");
    f("affine", &BatchNorm::affine, "whether a gain and a bias for each unit follow, which are learned");
  }
};
struct BatchNorm1d : BatchNorm {};
struct BatchNorm2d : BatchNorm {};

struct Dropout {
  double probability = 0.5;
  template <class F>
  static void fields(F&& f) {
    f("probability", &Dropout::probability, "of a number to be zero, in [0, 1)");
  }
};

struct LogStd {
  double initial = 0.0;
  template <class F>
  static void fields(F&& f) {
    f("initial", &LogStd::initial, "log sigma at birth");
  }
};

using Layer =
    std::variant<Linear, Conv2d, MaxPool2d, Flatten, ReLU, LeakyReLU, Tanh, Sigmoid, LayerNorm, BatchNorm1d, BatchNorm2d, Dropout, LogStd>;

}  // namespace klopf
