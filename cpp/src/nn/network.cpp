#include "klopf/network.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <numeric>

#include "klopf/error.hpp"

namespace klopf {

Network::Network(NetworkOptions options) : options_(std::move(options)) {
  options_.device = resolve_device(options_.device);
  backend_ = make_backend(options_.device, options_.precision);
  const auto& shape = options_.input_shape;
  if ((shape.size() != 1 && shape.size() != 3) || std::any_of(shape.begin(), shape.end(), [](int64_t n) { return n < 1 || n > 1 << 24; }))
    throw Error("[network] input_shape must be (inputs,) or (channels, height, width), each at least 1");
  if (options_.stream < 0 || options_.stream >= most_streams)
    throw Error("[network] stream must be from 0 to " + std::to_string(most_streams - 1) + ", got " + std::to_string(options_.stream));
  if (options_.runs < 1) throw Error("[network] runs must be at least 1, got " + std::to_string(options_.runs));
  constexpr int most_together = 65535;  // a grid's third dimension
  if (together() && options_.runs > most_together)
    throw Error("[network] runs must be at most " + std::to_string(most_together) + " on a GPU, got " + std::to_string(options_.runs));
  if (options_.seeds.empty())
    for (int r = 0; r < options_.runs; ++r) options_.seeds.push_back(static_cast<uint64_t>(r));
  if (options_.seeds.size() != static_cast<std::size_t>(options_.runs))
    throw Error("[network] seeds must be " + std::to_string(options_.runs) + " numbers, one for each run, got " +
                std::to_string(options_.seeds.size()));
  channels_ = static_cast<int>(shape[0]);
  if (shape.size() == 3) height_ = static_cast<int>(shape[1]), width_ = static_cast<int>(shape[2]);
  if (static_cast<double>(channels_) * height_ * width_ > INT32_MAX)
    throw Error("[network] input_shape must have at most 2147483647 numbers in all");
  input_size_ = static_cast<int64_t>(channels_) * height_ * width_;

  build();
  find_least_chunk();
  weights_ = layout_.add<float>("weights", {weights_count_});
  layout_.slot("weights").like_weights = true;
  for (Node& node : nodes_) {  // right behind the weights, as state_dict() and load_state_dict() have it
    const std::string prefix = std::to_string(node.layer) + ".";
    if (node.living) node.vacant = layout_.add<uint8_t>(prefix + "vacant", {node.channels});
    if (node.wires) {
      const Parameter& weight = parameters_[static_cast<std::size_t>(node.parameter)];
      node.wired = layout_.add<float>(prefix + "wires", weight.shape);
      layout_.slot(prefix + "wires").positions = weight.positions;
      layout_.slot(prefix + "wires").channels = weight.channels;
    }
    if (node.kind != Node::Kind::batch_norm) continue;
    node.running_mean = layout_.add<float>(prefix + "running_mean", {node.channels});
    node.running_variance = layout_.add<float>(prefix + "running_var", {node.channels});
  }
  buffers_ = layout_.slots().size() - 1;
  seed_ = layout_.add<uint64_t>("seed");
  draws_ = layout_.add<int64_t>("draws");
  find_units();
  static_cast<void>(initial(*std::find_if(nodes_.begin(), nodes_.end(), [](const Node& n) { return n.has_units(); }), options_.init));
  blocks_ = Blocks(options_.runs, layout_.bytes(), backend_->memory());
  blocks_.put(seed_, options_.seeds);
  for (const Node& node : nodes_) node.has_units() ? draw(node) : begin_normalisation(node);
  put_log_std(initial_log_std_);
  begin_vacancies();
}

void Network::draw(const Node& node) {
  const Parameter& weight = parameters_[static_cast<std::size_t>(node.parameter)];
  const DrawWeights op{initial(node, options_.init),
                       static_cast<int32_t>(weight.rows),
                       static_cast<int32_t>(weight.columns),
                       key(node.layer),
                       weight.ref,
                       parameters_[static_cast<std::size_t>(node.parameter) + 1].ref,
                       seed_,
                       draws_};
  for_plays([&](const Play& play) { backend_->draw_weights(op, play); });
  for (const Units& g : units_)
    if (g.place == node.layer && g.wires.present()) for_plays([&](const Play& play) { backend_->draw_wires({g, seed_, draws_}, play); });
}

// Calls work(play) for each run, or once where they are played together.
template <class F>
void Network::for_plays(F work) {
  Play play;
  play.base[space_network] = blocks_.to_play();
  play.stride[space_network] = blocks_.stride();
  play.runs = together() ? runs() : 1;
  for (int r = 0; r < runs(); r += play.runs, play.base[space_network] += blocks_.stride()) work(play);
}

void Network::fill(Ref<float> values, int64_t count, float value) {
  if (values.present()) blocks_.put(values, std::vector<float>(static_cast<std::size_t>(runs() * count), value));
}

// Gains are 1, biases 0; means that run are 0, variances 1.
void Network::begin_normalisation(const Node& node) {
  fill(node.running_mean, node.channels, 0);
  fill(node.running_variance, node.channels, 1);
  if (node.kind != Node::Kind::scale) return;
  for (int k = 0; k < 2; ++k) {
    const Parameter& parameter = parameters_[static_cast<std::size_t>(node.parameter + k)];
    fill(parameter.ref, parameter.columns, k == 0 ? 1.0f : 0.0f);
  }
}

void Network::put_log_std(double value) {
  fill(log_std_, outputs(), static_cast<float>(value));
  if (initial_.present() && log_std_.present()) fill(kept(log_std_), outputs(), static_cast<float>(value));
}

// The first units of a layer live at birth, the others do not.
void Network::begin_vacancies() {
  for (const Units& g : units_) {
    if (!g.vacant.present()) continue;
    std::vector<uint8_t> vacant;
    for (int run = 0; run < runs(); ++run)
      for (int u = 0; u < g.units; ++u) vacant.push_back(u >= *node_of(g.place).living);
    blocks_.put(g.vacant, vacant);
  }
  clear_absent();
}

// Where no unit lives, and no wire is, weights are zero.
Program Network::absent(const Units& group) const {
  Program program;
  const int64_t count = static_cast<int64_t>(group.units) * group.fan_in;
  if (group.wires.present()) {
    program.push_back(CutWires{count, group.wires, group.incoming});
    if (initial_.present()) program.push_back(CutWires{count, group.wires, kept(group.incoming)});
  }
  if (group.vacant.present()) program.push_back(UnitVacate{group, weights_, initial_});
  return program;
}

void Network::clear_absent() {
  for (const Units& g : units_)
    for (const Operation& op : absent(g))
      for_plays([&](const Play& play) { std::visit([&](const auto& o) { call(*backend_, o, play); }, op); });
}

int Network::parametric_layers() const {
  return static_cast<int>(std::count_if(nodes_.begin(), nodes_.end(), [](const Node& n) { return n.has_units(); }));
}

bool Network::normalises_batches() const {
  return std::any_of(nodes_.begin(), nodes_.end(), [](const Node& n) { return n.kind == Node::Kind::batch_norm; });
}

bool Network::drops_out() const {
  return std::any_of(nodes_.begin(), nodes_.end(), [](const Node& n) { return n.kind == Node::Kind::dropout; });
}

const Node& Network::node_of(int layer) const {
  return *std::find_if(nodes_.begin(), nodes_.end(), [&](const Node& n) { return n.layer == layer && n.has_units(); });
}

std::vector<Companion> Network::companions(const Units& group) const {
  std::vector<Companion> all;
  for (const Node& node : nodes_) {
    if (node.layer <= group.place || node.layer >= group.next_place) continue;
    if (node.kind == Node::Kind::batch_norm) {
      all.push_back({node.running_mean, 1, 0, 0, 0});
      all.push_back({node.running_variance, 1, 1, 0, 0});
    }
    for (int k = 0; k < 2 && node.kind == Node::Kind::scale; ++k) {
      const Parameter& parameter = parameters_[static_cast<std::size_t>(node.parameter + k)];
      all.push_back({parameter.ref, static_cast<int32_t>(parameter.columns / group.units), k == 0 ? 1.0f : 0.0f, 1, 0});
    }
  }
  return all;
}

// Where the initial ones of these weights are.
Ref<float> Network::kept(Ref<float> weights) const { return {initial_.space, initial_.offset + weights.offset - weights_.offset}; }

// Weights that begin anew are initial ones.
void Network::remember(const Node& node) {
  if (!initial_.present() || node.parameter < 0) return;
  for (int k = 0; k < 2; ++k) {
    const Parameter& parameter = parameters_[static_cast<std::size_t>(node.parameter + k)];
    blocks_.put(kept(parameter.ref), blocks_.fetch(parameter.ref, static_cast<std::size_t>(parameter.rows * parameter.columns)));
  }
}

Ref<float> Network::keep_initial() {
  if (initial_.present()) return initial_;
  const uint64_t before = layout_.bytes();
  initial_ = layout_.add<float>("initial", {weights_count_});
  layout_.slot("initial").like_weights = true;
  Blocks grown(runs(), layout_.bytes(), backend_->memory());
  blocks_.on_host(false);
  grown.on_host(true);
  for (int run = 0; run < runs(); ++run) {
    std::memcpy(grown.block(run), blocks_.block(run), before);
    std::memcpy(grown.at(initial_, run), grown.at(weights_, run), static_cast<std::size_t>(weights_count_) * sizeof(float));
  }
  blocks_ = std::move(grown);
  return initial_;
}

void Network::reset(const std::vector<int>& layers, const std::string& to) {
  if (to != "zero" && to != "initial") throw Error("[reset] to must be \"zero\" or \"initial\", got \"" + to + "\"");
  std::vector<const Node*> with_parameters;
  for (const Node& node : nodes_)
    if (node.has_units()) with_parameters.push_back(&node);
  const int count = static_cast<int>(with_parameters.size());
  std::vector<const Node*> chosen;
  for (const int layer : layers) {
    if (layer < -count || layer >= count)
      throw Error("[reset] layers must be from " + std::to_string(-count) + " to " + std::to_string(count - 1) +
                  " (counting layers with parameters), got " + std::to_string(layer));
    chosen.push_back(with_parameters[static_cast<std::size_t>(layer < 0 ? layer + count : layer)]);
  }
  if (to == "initial") for_plays([&](const Play& play) { backend_->advance({draws_}, play); });
  const Node* const end = nodes_.data() + nodes_.size();
  for (const Node* node : chosen) {
    if (to == "initial") {
      draw(*node);
      for (const Node* behind = node + 1; behind < end && !behind->has_units(); ++behind) begin_normalisation(*behind), remember(*behind);
    } else {
      for (int p = node->parameter; p < node->parameter + 2; ++p) {
        const Parameter& parameter = parameters_[static_cast<std::size_t>(p)];
        fill(parameter.ref, parameter.rows * parameter.columns, 0);
      }
    }
    remember(*node);
  }
  clear_absent();
}

void Network::reset(const std::string& to) {
  std::vector<int> layers(static_cast<std::size_t>(parametric_layers()));
  std::iota(layers.begin(), layers.end(), 0);
  reset(layers, to);
  put_log_std(to == "initial" ? initial_log_std_ : 0);
}

void Network::restart() {
  reset("initial");
  begin_vacancies();
  clear_for_restart(layout_, blocks_);
}

bool Network::is_convolution(std::size_t group) const {
  if (group >= units_.size())
    throw Error("[network] group must be below " + std::to_string(units_.size()) + ", got " + std::to_string(group));
  return node_of(units_[group].place).kind != Node::Kind::linear;
}

Batch Network::batch(const Samples& samples, int run, int64_t first, int64_t count) const {
  Batch batch;
  const int64_t bytes = input_size_ * (samples.type == InputType::uint8 ? 1 : 4);
  batch.x_run = samples.per_run ? samples.count * bytes : 0;
  batch.targets_run = samples.targets_per_run ? samples.count : 0;
  batch.x = static_cast<const char*>(samples.x) + run * batch.x_run;
  if (samples.labels) batch.labels = samples.labels + run * batch.targets_run;
  if (samples.targets) batch.targets = samples.targets + run * batch.targets_run * target_size(samples);
  batch.scale = samples.scale;
  batch.offset = samples.offset;
  batch.first = first;
  batch.count = batch.total = static_cast<int32_t>(count);
  batch.type = samples.type;
  return batch;
}

Play Network::play(const Blocks& work) const {
  Play play;
  play.base[space_network] = blocks_.to_play();
  play.stride[space_network] = blocks_.stride();
  play.base[space_work] = work.to_play();
  play.stride[space_work] = work.stride();
  play.runs = runs();
  return play;
}

Samples Network::stage(const Samples& samples) {
  if (!together()) return samples;
  Samples staged = samples;
  Blocks* block = staged_;
  const auto copy = [&](auto& p, int64_t count, int64_t size) {
    Blocks& to = *block++;
    if (!p) return;
    const uint64_t bytes = static_cast<uint64_t>(count * size);
    if (to.stride() < bytes) to = Blocks(1, bytes, backend_->memory(), false);
    if (&to == staged_ && samples.x_on_device) {
      backend_->memory()->copy_within(to.to_play(), bytes, p, bytes, bytes, 1);
      backend_->memory()->wait();
    } else {
      backend_->memory()->to_device(to.to_play(), bytes, p, bytes, bytes, 1);
    }
    p = reinterpret_cast<std::remove_reference_t<decltype(p)>>(to.to_play());
  };
  const int64_t in_all = samples.count * (samples.per_run ? runs() : 1), judged = samples.count * (samples.targets_per_run ? runs() : 1);
  copy(staged.x, in_all, input_size_ * (samples.type == InputType::uint8 ? 1 : 4));
  copy(staged.labels, judged, 4);
  copy(staged.targets, judged, 4 * target_size(samples));
  copy(staged.scale, channels_, 4);
  copy(staged.offset, channels_, 4);
  return staged;
}

// Samples below which a chunk is not worth its cost: a gradient array of its own, written and read once, and a thread to wait for.
void Network::find_least_chunk() {
  double flop = 0;  // of a sample, forward and backward, counted as if nothing were zero
  for (const Node& n : nodes_) {
    if (n.kind == Node::Kind::linear) flop += 6.0 * n.linear.inputs * n.linear.outputs;
    if (n.kind == Node::Kind::conv || n.kind == Node::Kind::conv_relu_pool)
      flop += 6.0 * n.conv.channels * n.conv.kernel_height * n.conv.kernel_width * n.conv.outputs * n.conv.out_height * n.conv.out_width;
  }
  // What is divided by the deviation over a batch needs it in one piece.
  if (normalises_batches()) least_chunk_ = int64_t{1} << 40;
  else least_chunk_ = 1 + static_cast<int64_t>(std::max(4096.0 * static_cast<double>(weights_count_), 4e6) / flop);
}

constexpr int64_t chunks_limit = 64;

Chunks Network::chunks(int64_t batch) const {
  const int64_t count = std::clamp<int64_t>(batch / least_chunk_, 1, chunks_limit), size = (batch + count - 1) / count;
  return {static_cast<int>((batch + size - 1) / size), static_cast<int>(size)};
}

Chunks Network::most_chunks(int64_t batch) const {
  const int64_t count = std::clamp<int64_t>(batch / least_chunk_, 1, chunks_limit);
  return {static_cast<int>(count),
          static_cast<int>(std::min(batch, std::max(2 * least_chunk_ - 1, (batch + chunks_limit - 1) / chunks_limit)))};
}

std::vector<Array> Network::state_dict() const {
  std::vector<Array> all = state();
  all.resize(parameters_.size() + buffers_);
  return all;
}

std::vector<Array> Network::state() const { return read_slots(layout_, blocks_, parameters_); }

// Masks of what is there, among arrays to be loaded.
void Network::check_masks(const std::vector<Array>& arrays, const char* where) const {
  const auto expect = [&](const Array& array, bool holds, const std::string& what) {
    if (!holds) throw Error("[" + std::string(where) + "] \"" + array.name + "\" must be " + what);
  };
  for (const Array& array : arrays)
    for (const Node& node : nodes_) {
      const std::string prefix = std::to_string(node.layer) + ".";
      if (node.living && array.name == prefix + "vacant")
        expect(array, std::all_of(array.data.begin(), array.data.end(), [](char c) { return c == 0 || c == 1; }),
               "0 where a unit lives, else 1");
      if (!node.wires || array.name != prefix + "wires" || array.type != Type::float32) continue;
      const float* wires = reinterpret_cast<const float*>(array.data.data());
      const int64_t inputs = array.shape.back(), all = static_cast<int64_t>(array.data.size() / sizeof(float));
      for (int64_t row = 0; row < all; row += inputs) {
        int64_t count = 0;
        for (int64_t i = row; i < row + inputs; ++i) {
          expect(array, wires[i] == 0 || wires[i] == 1, "1 where there is a wire, else 0");
          count += wires[i] == 1;
        }
        expect(array, count <= *node.wires, "1 at no more than " + std::to_string(*node.wires) + " inputs of a unit");
      }
    }
}

void Network::load_state(const std::vector<Array>& arrays) {
  check_masks(arrays, "load_state");
  write_slots(layout_, blocks_, parameters_, arrays, "load_state");
}

void Network::load_state_dict(const std::vector<Array>& arrays) {
  Layout first(space_network);
  for (std::size_t i = 0; i <= buffers_; ++i) {
    const Slot& slot = layout_.slots()[i];
    slot.type == Type::uint8 ? static_cast<void>(first.add<uint8_t>(slot.name, slot.shape))
                             : static_cast<void>(first.add<float>(slot.name, slot.shape));
    Slot& own = first.slot(slot.name);
    own.like_weights = slot.like_weights, own.positions = slot.positions, own.channels = slot.channels;
  }
  check_slots(first, blocks_, parameters_, arrays, "load_state_dict");
  check_masks(arrays, "load_state_dict");
  write_slots(first, blocks_, parameters_, arrays, "load_state_dict");
  clear_absent();
}

std::vector<Array> Network::unit_state(int group) const {
  const std::string prefix = "units." + std::to_string(group) + ".";
  std::vector<Array> found;
  for (Array& array : read_slots(layout_, blocks_, parameters_))
    if (array.name.starts_with(prefix)) {
      array.name = array.name.substr(prefix.size());
      found.push_back(std::move(array));
    }
  return found;
}

}  // namespace klopf
