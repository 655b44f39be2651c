#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "klopf/backend.hpp"
#include "klopf/layers.hpp"
#include "klopf/layout.hpp"

namespace klopf {

// A layer's weights or biases, in the network's block.
struct Parameter {
  std::string name;             // "0.weight"
  std::vector<int64_t> shape;   // as PyTorch has it
  int64_t rows, columns;        // as the engine holds it: [units, fan_in]
  int64_t positions, channels;  // columns = positions x channels, where users see channels x positions
  Ref<float> ref;
  bool scales = false;  // a number for each unit, or each number of a sample: gains, and their biases
};

// A step of the network after fusion: what it computes and on which parameters (index of its weight; the bias follows).
struct Node {
  enum class Kind { linear, conv, conv_relu_pool, max_pool, activation, layer_norm, batch_norm, scale, dropout } kind;
  int layer = 0;
  int parameter = -1;
  LinearShape linear{};
  int fan_in = 0;               // of its initial distribution
  std::optional<int> living{};  // units at birth, where that may change
  std::optional<int> wires{};   // inputs of a unit, if not all
  Ref<uint8_t> vacant{};        // which of the units do not live
  Ref<float> wired{};           // which of the weights are there
  ConvShape conv{};
  PoolShape pool{};
  Activation activation{};
  float slope = 0, epsilon = 0, momentum = 0, probability = 0;
  Ref<float> running_mean{}, running_variance{};  // of a batch_norm
  int64_t input_size = 0, output_size = 0;        // floats of one sample
  int32_t channels = 1, height = 1, width = 1;    // of the output
  bool image = false;
  // Whether it has units: outputs that are sums over its inputs.
  bool has_units() const { return kind == Kind::linear || kind == Kind::conv || kind == Kind::conv_relu_pool; }
  bool normalises() const { return kind == Kind::layer_norm || kind == Kind::batch_norm || kind == Kind::scale; }
};

// A batch is worked on in chunks of samples, which threads may share. How many depends on the network and the batch alone.
struct Chunks {
  int count, size;  // samples of all but the last
};

// What a pass is recorded for.
struct RecordOptions {
  bool training = false, curvature = false;
  bool errors = false;  // keep the gradients of units' activities
  Ref<int64_t> step{};  // counts updates, where layers draw at random
};

// The arrays of one recorded pass over a batch of at most `capacity` samples.
struct Tape {
  int capacity = 0;
  Program forward, backward;
  Program curvature;  // from grad_output, a probe, to the Gauss-Newton diagonal
  Program follow;     // what else follows a batch once it was learned: running means
  Ref<float> input, output, grad_output;
  Ref<float> grads;                    // of all weights, in their order
  Ref<float> curvatures;               // likewise
  std::vector<Ref<float>> activities;  // of each unit group
  std::vector<Ref<float>> errors;      // gradients of the loss by them, where they were asked for
};

struct NetworkOptions {
  std::vector<Layer> layers{};
  std::vector<int64_t> input_shape{};  // (I) or (C, H, W)
  int runs = 1;
  std::vector<uint64_t> seeds{};  // default 0 .. runs - 1
  std::string init = "kaiming";
  std::string device = "cpu", precision = "float32";
  int stream = 0;  // of random numbers: networks of the same seeds differ where this differs
};

// What a caller hands in: one array shared by all runs, or one for each. Nothing is copied.
struct Samples {
  const void* x = nullptr;
  InputType type = InputType::float32;
  int64_t count = 0;
  bool per_run = false;
  bool x_on_device = false;                         // x lies in the memory of the network's device
  const float *scale = nullptr, *offset = nullptr;  // [C]
  const int32_t* labels = nullptr;
  const float* targets = nullptr;
  bool targets_per_run = false;
  int64_t target_size = 0;  // numbers of a target; 0: as many as outputs
};

// R independent sequential networks of one architecture.
class Network {
 public:
  explicit Network(NetworkOptions options);

  const NetworkOptions& options() const { return options_; }
  int runs() const { return options_.runs; }
  int64_t outputs() const { return nodes_.empty() ? input_size_ : nodes_.back().output_size; }
  int64_t input_size() const { return input_size_; }
  int input_channels() const { return channels_; }
  const std::vector<Node>& nodes() const { return nodes_; }
  const std::vector<Parameter>& parameters() const { return parameters_; }
  const std::vector<Units>& units() const { return units_; }
  int parametric_layers() const;    // those that reset() counts: with units
  bool normalises_batches() const;  // whether samples of a batch depend on each other
  bool drops_out() const;
  int64_t least_batch() const { return least_batch_; }  // that it can learn from
  // What is a unit's of the normalisation behind its layer.
  std::vector<Companion> companions(const Units& group) const;
  Ref<float> log_std() const { return log_std_; }  // [O] of a policy; or absent
  const Node& node_of(int layer) const;            // with units
  bool is_convolution(std::size_t group) const;    // whether the units of a group are filters
  // The initial distribution of a layer's weights, named as in NetworkOptions::init.
  InitialDistribution initial(const Node& node, const std::string& name) const;
  InitialDistribution initial(const Units& group, const std::string& name) const;

  // outputs [R, N, O]
  std::vector<float> infer(const Samples& samples);
  // The same, left on the network's device.
  DeviceArray infer_on_device(const Samples& samples);
  // of each group [R, N, U, positions]
  std::vector<std::vector<float>> activities(const Samples& samples);

  // Layers counted among those with parameters; negative from the end. to: "zero", or "initial" for a fresh draw.
  // A fresh draw also begins anew the normalisation behind the layer.
  void reset(const std::vector<int>& layers, const std::string& to);
  void reset(const std::string& to);  // all layers, and log sigma
  void restart();                     // a fresh draw, and statistics of units cleared

  Program absent(const Units& group) const;  // makes zero what is not there

  // From now on keeps the weights as they began: as they are now, and as they are drawn, reset and replaced from here on.
  Ref<float> keep_initial();
  Ref<float> initial_weights() const { return initial_; }  // absent before

  std::vector<Array> state_dict() const;
  void load_state_dict(const std::vector<Array>& arrays);
  // Everything: parameters, statistics of units, random position.
  std::vector<Array> state() const;
  void load_state(const std::vector<Array>& arrays);
  void check_masks(const std::vector<Array>& arrays, const char* where) const;  // vacant and wires among them
  std::vector<Array> unit_state(int group) const;

  // For learners.
  Tape record(WorkLayout& work, int capacity, const RecordOptions& what = {}) const;
  Chunks chunks(int64_t batch) const;
  Chunks most_chunks(int64_t batch) const;  // count and size that no batch up to this one exceeds
  Ref<float> weights() const { return weights_; }
  int32_t perturbation_key() const { return key(0); }
  int64_t weights_count() const { return weights_count_; }
  Ref<uint64_t> seed() const { return seed_; }
  Blocks& blocks() { return blocks_; }
  Layout& layout() { return layout_; }
  const Layout& layout() const { return layout_; }
  Backend& backend() const { return *backend_; }
  // Whether plays are of all runs at once.
  bool together() const { return backend_->memory() != nullptr; }
  // So many samples from `first` on, of a run; or of all, where they are played together.
  Batch batch(const Samples& samples, int run, int64_t first, int64_t count) const;
  // A play of all runs, in these workspaces.
  Play play(const Blocks& work) const;
  // The samples where plays can read them: copied to the device, until the next call; or as they are.
  Samples stage(const Samples& samples);
  int64_t target_size(const Samples& samples) const { return samples.target_size ? samples.target_size : outputs(); }

 private:
  static constexpr int most_layers = 1 << 12, most_streams = 1 << 11;
  void build();
  void add_parameters(Node& node, int64_t rows, int64_t columns, int64_t positions, int64_t channels, std::vector<int64_t> shape);
  void add_scale(const Node& node, bool by_element);
  Ref<float> place(int64_t count);
  void find_units();
  void draw(const Node& node);
  void begin_normalisation(const Node& node);
  void fill(Ref<float> values, int64_t count, float value);
  void remember(const Node& node);
  Ref<float> kept(Ref<float> weights) const;
  void put_log_std(double value);
  void begin_vacancies();
  void clear_absent();
  int key(int layer) const { return options_.stream * most_layers + layer; }
  template <class F>
  void for_plays(F work);
  void find_least_chunk();
  template <class Visit>
  void forward_together(const Tape& tape, uint64_t work_bytes, const Samples& samples, Visit visit);
  template <class Wanted, class Visit>
  void forward_all(const Samples& samples, Wanted wanted, Visit visit);

  NetworkOptions options_;
  std::shared_ptr<Backend> backend_;
  int channels_ = 1, height_ = 1, width_ = 1;
  int64_t input_size_ = 0, least_chunk_ = 1, least_batch_ = 1;
  std::vector<Node> nodes_;
  std::vector<Parameter> parameters_;
  std::vector<Units> units_;
  Layout layout_{space_network};
  Ref<float> weights_, log_std_, initial_;
  double initial_log_std_ = 0;
  int64_t weights_count_ = 0;
  std::size_t buffers_ = 0;  // arrays that are state beside the weights
  Ref<uint64_t> seed_;
  Ref<int64_t> draws_;
  Blocks blocks_;
  Blocks staged_[5];  // samples on a device: x, labels, targets, scale, offset
};

// Reads the arrays of a layout from blocks, and writes them if they fit; `parameters` splits those that are like weights.
std::vector<Array> read_slots(const Layout& layout, const Blocks& blocks, const std::vector<Parameter>& parameters);
void check_slots(const Layout& layout, const Blocks& blocks, const std::vector<Parameter>& parameters, const std::vector<Array>& arrays,
                 const char* where);
void write_slots(const Layout& layout, const Blocks& blocks, const std::vector<Parameter>& parameters, const std::vector<Array>& arrays,
                 const char* where);

std::vector<std::string> initialiser_names();
std::shared_ptr<Backend> make_cpu_backend();

}  // namespace klopf
