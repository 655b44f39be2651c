// Whole epochs: threads over runs, or over the chunks of each batch where runs are fewer.
#include <algorithm>
#include <chrono>
#include <limits>

#include "klopf/learner.hpp"
#include "klopf/threads.hpp"
#include "learn/check.hpp"
#include "learn/shuffle.hpp"

namespace klopf {

namespace {

// An epoch of a run: the order of its samples, and what was seen so far.
struct Epoch {
  Shuffle shuffle;
  double loss = 0;
  int64_t correct = 0;
};

}  // namespace

History Learner::run(const Samples& samples, const RunOptions& options) {
  check(options), check("learner.run", *network_, loss_, samples);
  if (network_->together()) return run_together(samples, options);
  const int64_t batch_size = std::min(options.batch_size, samples.count), epochs = options.epochs;
  const int runs = network_->runs(), threads = get_threads(), workspaces = std::min(threads, runs);
  const bool shared = share_runs(batch_size);
  prepare(thread_work_, batch_size, workspaces);
  History history;
  history.loss.assign(static_cast<std::size_t>(runs * epochs), std::numeric_limits<double>::quiet_NaN());
  history.accuracy = history.loss;
  std::vector<Epoch> each(static_cast<std::size_t>(workspaces), Epoch{Shuffle(options.shuffle ? samples.count : 0)});

  const auto begin = [&](int run, Epoch& now) {
    now.loss = 0;
    now.correct = 0;
    if (options.shuffle && *blocks_.at(alive_, run))
      now.shuffle.draw(*network_->blocks().at(network_->seed(), run), 0, *blocks_.at(epoch_, run));
  };
  const auto batch = [&](int run, int workspace, int64_t first) {
    Play now = play(run, thread_work_, workspace, samples, first, std::min(batch_size, samples.count - first));
    if (options.shuffle) now.batch.order = each[static_cast<std::size_t>(workspace)].shuffle.order.data();
    return now;
  };
  const auto count = [&](const Play& play, Epoch& now) {
    now.loss += *play.at(training_.loss) * play.batch.total;
    now.correct += *play.at(training_.correct);
  };
  const auto end = [&](int run, const Epoch& now, int64_t index) {
    ++*blocks_.at(epoch_, run);
    if (!*blocks_.at(alive_, run)) return;
    const std::size_t at = static_cast<std::size_t>(run * epochs + index);
    history.loss[at] = now.loss / static_cast<double>(samples.count);
    if (classification()) history.accuracy[at] = static_cast<double>(now.correct) / static_cast<double>(samples.count);
  };
  // A run after the other, each by one thread.
  const auto epochs_apart = [&](int64_t from, int64_t to) {
    parallel_for(runs, workspaces, [&](int64_t item, int thread) {
      const int run = static_cast<int>(item);
      Epoch& now = each[static_cast<std::size_t>(thread)];
      for (int64_t i = from; i < to; ++i) {
        begin(run, now);
        Play play = batch(run, thread, 0);
        for (int64_t first = 0; first < samples.count && *blocks_.at(alive_, run); first += batch_size) {
          if (first + batch_size <= samples.count) play.batch.first = first;
          else play = batch(run, thread, first);
          learn(play);
          count(play, now);
        }
        end(run, now, i);
      }
    });
  };
  // All runs together, a batch at a time: first its chunks, by all threads, then what is done once a batch.
  const auto epochs_shared = [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i) {
      for (int run = 0; run < runs; ++run) begin(run, each[static_cast<std::size_t>(run)]);
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
          count(play, each[static_cast<std::size_t>(run)]);
        });
      }
      for (int run = 0; run < runs; ++run) end(run, each[static_cast<std::size_t>(run)], i);
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
