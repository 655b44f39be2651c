// What a network says of samples, and its units' activities; nothing learns.
#include <algorithm>
#include <cstdint>

#include "klopf/error.hpp"
#include "klopf/network.hpp"
#include "klopf/threads.hpp"
#include "nn/check.hpp"

namespace klopf {

// Plays the forward pass for all samples, a chunk at a time: visit(workspaces, first sample, samples) after each.
template <class Visit>
void Network::forward_together(const Tape& tape, uint64_t work_bytes, const Samples& samples, Visit visit) {
  const Samples staged = stage(samples);
  const Blocks workspaces(runs(), work_bytes, backend_->memory(), false);
  Play play = this->play(workspaces);
  for (int64_t first = 0; first < samples.count; first += tape.capacity) {
    const int64_t count = std::min<int64_t>(tape.capacity, samples.count - first);
    play.batch = batch(staged, 0, first, count);
    play_program(*backend_, tape.forward, play);
    visit(workspaces, first, count);
  }
}

// Plays the forward pass for all samples of all runs, a chunk at a time. wanted(tape): arrays and their numbers a sample;
// visit(index of the array, run, first sample, samples, numbers) after each chunk.
template <class Wanted, class Visit>
void Network::forward_all(const Samples& samples, Wanted wanted, Visit visit) {
  WorkLayout work;
  const Tape tape = record(work, static_cast<int>(std::min<int64_t>(samples.count, 64)));
  const std::vector<std::pair<Ref<float>, int64_t>> arrays = wanted(tape);
  const int64_t chunks = (samples.count + tape.capacity - 1) / tape.capacity, items = runs() * chunks;
  const auto count = [&](int64_t first) { return std::min<int64_t>(tape.capacity, samples.count - first); };
  if (together())
    return forward_together(tape, work.bytes(), samples, [&](const Blocks& workspaces, int64_t first, int64_t count) {
      for (std::size_t k = 0; k < arrays.size(); ++k) {
        const int64_t size = count * arrays[k].second;
        const std::vector<float> values = workspaces.fetch(arrays[k].first, static_cast<std::size_t>(size));
        for (int run = 0; run < runs(); ++run) visit(k, run, first, count, values.data() + run * size);
      }
    });
  const Blocks workspaces(static_cast<int>(std::min<int64_t>(get_threads(), items)), work.bytes());
  parallel_for(items, workspaces.count(), [&](int64_t item, int thread) {
    const int run = static_cast<int>(item / chunks);
    const int64_t first = item % chunks * tape.capacity;
    Play play;
    play.base[space_network] = blocks_.block(run);
    play.base[space_work] = workspaces.block(thread);
    play.batch = batch(samples, run, first, count(first));
    play_program(*backend_, tape.forward, play);
    for (std::size_t k = 0; k < arrays.size(); ++k) visit(k, run, first, count(first), play.at(arrays[k].first));
  });
}

std::vector<float> Network::infer(const Samples& samples) {
  check_samples("network", samples);
  std::vector<float> out(static_cast<std::size_t>(runs() * samples.count * outputs()));
  forward_all(
      samples, [&](const Tape& tape) { return std::vector{std::pair{tape.output, outputs()}}; },
      [&](std::size_t, int run, int64_t first, int64_t count, const float* values) {
        std::copy_n(values, count * outputs(), out.begin() + (run * samples.count + first) * outputs());
      });
  return out;
}

DeviceArray Network::infer_on_device(const Samples& samples) {
  check_samples("network", samples);
  if (!together()) throw Error("[network] infer_on_device needs a device of its own, got \"cpu\"");
  WorkLayout work;
  const Tape tape = record(work, static_cast<int>(std::min<int64_t>(samples.count, 64)));
  DeviceArray all(backend_->memory(), Type::float32, {runs(), samples.count, outputs()});
  forward_together(tape, work.bytes(), samples,
                   [&](const Blocks& workspaces, int64_t first, int64_t count) { all.take(workspaces, tape.output, first, count); });
  return all;
}

std::vector<std::vector<float>> Network::activities(const Samples& samples) {
  check_samples("activities", samples);
  std::vector<std::vector<float>> out;
  for (const Units& g : units_) out.emplace_back(static_cast<std::size_t>(runs() * samples.count * g.units * g.positions));
  forward_all(
      samples,
      [&](const Tape& tape) {
        std::vector<std::pair<Ref<float>, int64_t>> all;
        for (std::size_t k = 0; k < units_.size(); ++k)
          all.emplace_back(tape.activities[k], static_cast<int64_t>(units_[k].units) * units_[k].positions);
        return all;
      },
      [&](std::size_t k, int run, int64_t first, int64_t count, const float* from) {
        const Units& g = units_[k];
        float* to = out[k].data() + (run * samples.count + first) * g.units * g.positions;
        for (int64_t b = 0; b < count; ++b)
          for (int s = 0; s < g.positions; ++s)
            for (int u = 0; u < g.units; ++u) to[(b * g.units + u) * g.positions + s] = *from++;
      });
  return out;
}

}  // namespace klopf
