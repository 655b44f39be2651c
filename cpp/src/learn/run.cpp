// Whole epochs: threads over runs, or over the chunks of each batch where runs are fewer.
#include <algorithm>
#include <chrono>
#include <limits>

#include "klopf/learner.hpp"
#include "klopf/threads.hpp"
#include "learn/check.hpp"

namespace klopf {

Learner::Epoch Learner::prepare_epochs(const Pass& pass, int64_t samples, bool shuffle, int64_t epochs, int workspaces) {
  WorkLayout layout(space_epoch);
  const auto size = [](int64_t n) { return static_cast<std::size_t>(n); };
  const int64_t ordered = shuffle ? samples : 0;
  Epoch epoch{{pass.sums, ordered, network_->seed(), epoch_, alive_, {}, {}}, {pass.sums, epoch_, alive_, counts_, 0, {}, {}}};
  epoch.end.loss = layout.take<double>(size(epochs));
  epoch.end.accuracy = layout.take<double>(size(epochs));
  epoch.begin.order = layout.take<uint32_t>(size(ordered));
  epoch.begin.keys = layout.take<uint64_t>(2 * size(ordered));
  const uint64_t stride = (layout.bytes() + 63) / 64 * 64;
  if (epoch_work_.count() < workspaces || epoch_work_.stride() < stride)
    epoch_work_ = Blocks(workspaces, layout.bytes(), network_->backend().memory(), false);
  return epoch;
}

Later<History> Learner::run_later(const Samples& samples, const RunOptions& options) {
  check(options), check("learner.run", *this, samples);
  check_batch("learner.run", *network_, std::min(options.batch_size, samples.count));
  if (const int64_t rest = samples.count % options.batch_size) check_batch("learner.run", *network_, rest);
  if (pauses()) return run_with_turns(samples, options);
  if (network_->together()) return run_together(samples, options);
  const int64_t batch_size = std::min(options.batch_size, samples.count), epochs = options.epochs;
  const int runs = network_->runs(), threads = get_threads(), workspaces = std::min(threads, runs);
  const bool shared = share_runs(batch_size);
  prepare(thread_work_, batch_size, workspaces);
  const Epoch epoch = prepare_epochs(training_, samples.count, options.shuffle, 1, workspaces);
  Backend& backend = network_->backend();
  History history;
  history.loss.assign(static_cast<std::size_t>(runs * epochs), std::numeric_limits<double>::quiet_NaN());
  history.accuracy = history.loss;

  const auto batch = [&](int run, int workspace, int64_t first) {
    Play now = play(run, thread_work_, workspace, samples, first, std::min(batch_size, samples.count - first));
    now.base[space_epoch] = epoch_work_.block(workspace);
    if (options.shuffle) now.batch.order = now.at(epoch.begin.order);
    return now;
  };
  const auto end = [&](const Play& play, int run, int64_t index) {
    backend.end_epoch(epoch.end, play);
    const std::size_t at = static_cast<std::size_t>(run * epochs + index);
    history.loss[at] = *play.at(epoch.end.loss);
    history.accuracy[at] = *play.at(epoch.end.accuracy);
  };
  // A run after the other, each by one thread.
  const auto epochs_apart = [&](int64_t from, int64_t to) {
    parallel_for(runs, workspaces, [&](int64_t item, int thread) {
      const int run = static_cast<int>(item);
      for (int64_t i = from; i < to; ++i) {
        Play play = batch(run, thread, 0);
        backend.begin_epoch(epoch.begin, play);
        for (int64_t first = 0; first < samples.count && *blocks_.at(alive_, run); first += batch_size) {
          if (first + batch_size <= samples.count) play.batch.first = first;
          else play = batch(run, thread, first);
          learn(play);
          backend.tally(training_.tally, play);
        }
        end(play, run, i);
      }
    });
  };
  // All runs together, a batch at a time: first its chunks, by all threads, then what is done once a batch.
  const auto epochs_shared = [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i) {
      for (int run = 0; run < runs; ++run) backend.begin_epoch(epoch.begin, batch(run, run, 0));
      for (int64_t first = 0; first < samples.count; first += batch_size) {
        const int chunks = network_->chunks(std::min(batch_size, samples.count - first)).count;
        parallel_for(runs * chunks, threads, [&](int64_t item, int) {
          const int run = static_cast<int>(item / chunks);
          if (*blocks_.at(alive_, run)) forward_backward(batch(run, run, first), static_cast<int>(item % chunks));
        });
        parallel_for(runs, workspaces, [&](int64_t item, int) {
          const int run = static_cast<int>(item);
          if (!*blocks_.at(alive_, run)) return;
          const Play play = batch(run, run, first);
          finish(play);
          backend.tally(training_.tally, play);
        });
      }
      for (int run = 0; run < runs; ++run) end(batch(run, run, 0), run, i);
    }
  };

  using Clock = std::chrono::steady_clock;
  for (int64_t done = 0, slice = 1; done < epochs;) {
    const auto started = Clock::now();
    slice = std::min(slice, epochs - done);
    shared ? epochs_shared(done, done + slice) : epochs_apart(done, done + slice);
    done += slice;
    const double seconds = std::chrono::duration<double>(Clock::now() - started).count();
    slice = std::max<int64_t>(
        1, static_cast<int64_t>(std::min(2.0 * static_cast<double>(slice), 0.4 * static_cast<double>(slice) / std::max(seconds, 1e-6))));
    if (options.between) options.between();
  }
  return history;
}

}  // namespace klopf
