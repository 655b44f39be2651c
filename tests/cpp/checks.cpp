// What only C++ can see: errors of the C++ interface, exceptions from a callback, learners on threads of their own, memory.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "klopf/klopf.hpp"

// Every allocation of the program is counted. Not inlined: the compiler would miss the pairing and warn.
std::atomic<long> allocations{0};
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  ++allocations;
  if (void* p = std::malloc(bytes)) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void* operator new(std::size_t bytes, std::align_val_t alignment) {
  ++allocations;
  const std::size_t a = static_cast<std::size_t>(alignment);
  if (void* p = std::aligned_alloc(a, (bytes + a - 1) / a * a)) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }

namespace {

using namespace klopf;

int failures = 0;
void expect(bool holds, const std::string& claim) {
  if (holds) return;
  ++failures;
  std::printf("FAILED: %s\n", claim.c_str());
}
template <class F>
void expect_error(const std::string& message, F call) {
  std::string got = "no error";
  try {
    call();
  } catch (const Error& error) {
    got = error.what();
  } catch (const std::exception& error) {
    got = std::string("another exception: ") + error.what();
  }
  expect(got == message, "expected " + message + "\n             got " + got);
}

// A small problem: 20 points, three classes, also as targets.
constexpr int count = 20, inputs = 4, outputs = 3, runs = 3;
struct Problem {
  std::vector<float> x = std::vector<float>(count * inputs), targets = std::vector<float>(count * outputs);
  std::vector<int32_t> labels = std::vector<int32_t>(count);
  Problem() {
    for (std::size_t n = 0; n < count; ++n) {
      labels[n] = static_cast<int32_t>(n % outputs);
      targets[n * outputs + n % outputs] = 1;
      for (std::size_t i = 0; i < inputs; ++i) x[n * inputs + i] = static_cast<float>((7 * n + 3 * i) % 11) / 11 + (i == n % outputs);
    }
  }
  Samples samples() const { return {.x = x.data(), .count = count, .labels = labels.data(), .targets = targets.data()}; }
};

Learner make(int of_runs = runs, const char* loss = "cross_entropy", std::vector<uint64_t> seeds = {}) {
  const NetworkOptions options{.layers = {Linear{8}, ReLU{}, Linear{8}, Tanh{}, Linear{outputs}},
                               .input_shape = {inputs},
                               .runs = of_runs,
                               .seeds = std::move(seeds)};
  return {std::make_shared<Network>(options),
          loss,
          SGD{.step_size = 0.05, .momentum = 0.9, .weight_decay = 1e-4},
          {ContinualBackprop{.replacement_rate = 0.05, .maturity = 5}, ShrinkAndPerturb{.noise = 1e-4}}};
}

std::vector<int64_t> epochs_of(const Learner& learner) {
  std::vector<int64_t> epochs(runs);
  for (const Array& array : learner.state())
    if (array.name == "epoch") std::memcpy(epochs.data(), array.data.data(), array.data.size());
  return epochs;
}

bool same(const Learner& a, const Learner& b) {
  const std::vector<Array> of_a = a.state(), of_b = b.state();
  for (std::size_t i = 0; i < of_a.size(); ++i)
    if (of_a[i].data != of_b[i].data) return false;
  return of_a.size() == of_b.size();
}

void mistakes() {
  const Problem problem;
  const auto with = [&](auto change) {
    Samples samples = problem.samples();
    change(samples);
    return samples;
  };
  Learner learner = make(), mse = make(runs, "mse");
  const std::vector<Array> before = learner.state();

  const Samples none = with([](Samples& s) { s.count = 0; }), negative = with([](Samples& s) { s.count = -1; }),
                no_x = with([](Samples& s) { s.x = nullptr; }), no_y = with([](Samples& s) { s.labels = nullptr, s.targets = nullptr; });
  expect_error("[learner.step] x must have from 1 to 2147483647 samples, got 0", [&] { learner.step(none); });
  expect_error("[learner.run] x must have from 1 to 2147483647 samples, got 0", [&] { learner.run(none); });
  expect_error("[learner.evaluate] x must have from 1 to 2147483647 samples, got -1", [&] { learner.evaluate(negative); });
  expect_error("[learner.forward] x must be given, got none", [&] { learner.forward(no_x); });
  expect_error("[network] x must be given, got none", [&] { learner.network().infer(no_x); });
  expect_error("[activities] x must be given, got none", [&] { learner.network().activities(no_x); });
  expect_error("[learner.step] labels must be given for cross_entropy, got none", [&] { learner.step(no_y); });
  expect_error("[learner.run] targets must be given for mse, got none", [&] { mse.run(no_y); });

  // The last label of the last run: all are looked at, and only they.
  std::vector<int32_t> labels(runs * count);
  const Samples own = with([&](Samples& s) { s.labels = labels.data(), s.targets_per_run = true; });
  labels.back() = outputs;
  expect_error("[learner.run] y must be labels from 0 to 2, got 3", [&] { learner.run(own); });
  labels.back() = -1;
  expect_error("[learner.evaluate] y must be labels from 0 to 2, got -1", [&] { learner.evaluate(own); });

  const Samples samples = problem.samples();
  expect_error("[learner.run] batch_size must be at least 1, got 0", [&] { learner.run(samples, {.batch_size = 0}); });
  expect_error("[learner.run] epochs must not be negative, got -1", [&] { learner.run(samples, {.epochs = -1}); });
  expect_error("[learner.run] epochs must be at most 2147483647, got 4611686018427387904",
               [&] { learner.run(samples, {.epochs = int64_t{1} << 62}); });
  expect(learner.run(samples, {.epochs = 0}).loss.empty(), "no epochs, no history");

  std::vector<float> grad(runs * count * outputs);
  expect_error("[backward] needs a forward() before it", [&] { learner.backward(grad.data(), count); });
  learner.forward(samples);
  expect_error("[backward] grad must be given, got none", [&] { learner.backward(nullptr, count); });
  expect_error("[backward] grad must have the batch of the last forward(), 20, got 19", [&] { learner.backward(grad.data(), count - 1); });
  expect_error("[apply] needs a backward() before it", [&] { learner.apply(); });

  std::vector<Array> arrays = learner.state();
  for (Array& array : arrays) std::fill(array.data.begin(), array.data.end(), 1);  // must not arrive
  arrays.push_back(arrays[0]);
  expect_error("[load_state] \"0.weight\" is given twice", [&] { learner.load_state(arrays); });
  arrays.pop_back();
  arrays[0].data.pop_back();
  expect_error("[load_state] \"0.weight\" must have 384 bytes, got 383", [&] { learner.load_state(arrays); });
  expect_error("[network] group must be below 2, got 2", [&] { learner.network().is_convolution(2); });

  const auto network = std::make_shared<Network>(learner.network().options());
  expect_error("[learner] network must be given, got none", [] { Learner(nullptr, "mse", SGD{}); });
  expect_error("[learner] loss must be one of cross_entropy, mse, squared_error, got \"hinge\"", [&] { Learner(network, "hinge", SGD{}); });
  expect_error("[SGD] step_size must be one number or 3 (one for each run), got 2",
               [&] { Learner(network, "mse", SGD{.step_size = {0.1, 0.2}}); });
  expect_error("[Adam] beta1 must be one number or 3 (one for each run), got 0",
               [&] { Learner(network, "mse", Adam{.beta1 = std::vector<double>{}}); });
  expect_error("[ContinualBackprop] replacement_rate must be in [0, 1], got 2",
               [&] { Learner(network, "mse", SGD{}, {ContinualBackprop{.replacement_rate = 2}}); });
  expect_error("[network] runs must be at least 1, got 0", [] { Network({.layers = {Linear{1}}, .input_shape = {1}, .runs = 0}); });
  expect_error("[network] layers must contain a Linear or a Conv2d", [] { Network({.input_shape = {1}}); });
  expect_error("[network] input_shape must have at most 2147483647 numbers in all",
               [] { Network({.layers = {Flatten{}, Linear{1}}, .input_shape = {1, 65536, 65536}}); });
  expect_error("[network] layer 0 must have at most 2147483647 outputs, got 4294967296",
               [] { Network({.layers = {Conv2d{65536, 1}, Flatten{}, Linear{1}}, .input_shape = {1, 256, 256}}); });

  expect_error("[permutation] n must not be negative, got -1", [] { permutation(0, 0, 0, -1); });
  expect_error("[permutation] stream must be below 16777216, got 16777216", [] { permutation(0, 1u << 24, 0, 1); });
  expect_error("[synthetic_images] out must be given, got none", [] { synthetic_images(0, 0, 0, 1, 32, nullptr); });
  expect_error("[set_threads] count must be from 1 to 4096, got 0", [] { set_threads(0); });

  bool untouched = true;
  const std::vector<Array> after = learner.state();
  for (std::size_t i = 0; i < before.size(); ++i) untouched = untouched && before[i].data == after[i].data;
  expect(untouched, "a refused call changes nothing");
}

void exceptions_leave_a_whole_epoch() {
  const Problem problem;
  Learner learner = make(), other = make();
  int calls = 0;
  const auto between = [&] {
    if (++calls == 3) throw std::runtime_error("stop");
  };
  std::string message;
  try {
    learner.run(problem.samples(), {.batch_size = 6, .epochs = 2000, .between = between});
  } catch (const std::runtime_error& error) {
    message = error.what();
  }
  expect(message == "stop", "an exception of `between` reaches the caller as it is");
  const std::vector<int64_t> epochs = epochs_of(learner);
  expect(epochs[0] >= 3 && epochs[0] < 2000 && epochs[1] == epochs[0] && epochs[2] == epochs[0], "all runs stand at the same epoch");
  learner.run(problem.samples(), {.batch_size = 6, .epochs = 2000 - epochs[0]});
  other.run(problem.samples(), {.batch_size = 6, .epochs = 2000});
  expect(same(learner, other), "a run that goes on after an exception ends as one that was not stopped");
}

void learners_on_threads_of_their_own() {
  const Problem problem;
  for (const int of_runs : {1, runs}) {
    const auto train = [&](Learner& learner) {
      for (int i = 0; i < 20; ++i) {
        learner.run(problem.samples(), {.batch_size = 6, .epochs = 20});
        learner.step(problem.samples());
        learner.evaluate(problem.samples());
      }
    };
    std::vector<Learner> alone, together;
    for (uint64_t first : {0, 100})
      for (std::vector<Learner>* learners : {&alone, &together}) {
        std::vector<uint64_t> seeds;
        for (int r = 0; r < of_runs; ++r) seeds.push_back(first + static_cast<uint64_t>(r));
        learners->push_back(make(of_runs, "cross_entropy", seeds));
      }
    for (Learner& learner : alone) train(learner);
    std::vector<std::thread> threads;
    for (Learner& learner : together) threads.emplace_back([&] { train(learner); });
    for (std::thread& thread : threads) thread.join();
    for (std::size_t i = 0; i < alone.size(); ++i)
      expect(same(alone[i], together[i]), "learners of " + std::to_string(of_runs) + " runs do the same at once as one after another");
    expect(!same(alone[0], alone[1]), "the two learners differ");
  }
}

// Between calls of `between` lies a slice of epochs, ever more of them.
void steps_allocate_nothing() {
  const Problem problem;
  for (const int threads : {1, 2}) {
    set_threads(threads);
    Learner learner = make();
    learner.run(problem.samples(), {.batch_size = 6});
    std::vector<long> seen;
    seen.reserve(10000);
    const auto allocated = [&](int64_t epochs) {
      seen.clear();
      const long before = allocations;
      learner.run(problem.samples(), {.batch_size = 6, .epochs = epochs, .between = [&] { seen.push_back(allocations); }});
      return allocations - before;
    };
    const long few = allocated(10), many = allocated(1000);
    long most = 0;
    for (std::size_t i = 1; i < seen.size(); ++i) most = std::max(most, seen[i] - seen[i - 1]);
    std::printf("%d threads: %ld allocations in 10 epochs, %ld in 1000 (%zu slices), at most %ld a slice\n", threads, few, many,
                seen.size(), most);
    expect(few == many, "1000 epochs allocate as often as 10");
    expect(most == 0, "a slice of epochs allocates nothing");
  }
}

}  // namespace

int main() {
  mistakes();
  exceptions_leave_a_whole_epoch();
  learners_on_threads_of_their_own();
  steps_allocate_nothing();
  if (failures == 0) std::printf("klopf %s: all is well\n", version());
  return failures != 0;
}
