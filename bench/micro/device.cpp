// Every operation of a step by itself, on any device, and the whole step. Prints JSON; needs nothing but the library.
//
//   klopf-operations NETWORK RUNS DEVICE PRECISION SECONDS COPIES
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "costs.hpp"
#include "opened.hpp"

namespace klopf::micro {
namespace {

constexpr int samples = 5;

// Several learners alike, in turns, so that what one leaves in the device's cache is gone when it comes again.
class Copies {
 public:
  Copies(const Case& of, int count, int runs, const std::string& device, const std::string& precision) {
    for (int i = 0; i < count; ++i) all_.push_back(std::make_unique<Opened>(of, runs, device, precision));
  }
  Opened& first() const { return *all_.front(); }
  void step() const {
    for (const auto& one : all_) one->play_step();
  }
  bool all_alive() const {
    return std::all_of(all_.begin(), all_.end(), [](const auto& one) { return one->all_alive(); });
  }
  // Seconds of what work(learner) does: the median of samples that take a share of `seconds` each, many plays and one wait.
  template <class F>
  double time(double seconds, F work) {
    std::vector<double> found;
    for (int64_t plays = 1; found.size() < samples;) {
      const auto start = std::chrono::steady_clock::now();
      for (int64_t i = 0; i < plays; ++i) work(*all_[next_++ % all_.size()]);
      for (const auto& one : all_) one->wait();
      const double took = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      if (took * samples >= seconds || !found.empty()) found.push_back(took / static_cast<double>(plays));
      else plays = std::max(2 * plays, static_cast<int64_t>(1.2 * seconds / samples / took * static_cast<double>(plays)));
    }
    std::nth_element(found.begin(), found.begin() + samples / 2, found.end());
    return found[samples / 2];
  }

 private:
  std::vector<std::unique_ptr<Opened>> all_;
  std::size_t next_ = 0;
};

int main(int count, char** words) {
  if (count != 7) throw Error("expected NETWORK RUNS DEVICE PRECISION SECONDS COPIES");
  const std::string wanted = words[1], device = words[3], precision = words[4];
  const int runs = std::atoi(words[2]), copies = std::atoi(words[6]);
  const double seconds = std::atof(words[5]);
  const std::vector<Case> known = cases();
  const auto of = std::find_if(known.begin(), known.end(), [&](const Case& c) { return c.name == wanted; });
  if (of == known.end()) throw Error("no network is called " + wanted);
  if (runs < 1 || copies < 1) throw Error("RUNS and COPIES must be at least 1");

  Copies all(*of, copies, runs, device, precision);
  const Program& program = all.first().program();
  std::printf("{\"network\": \"%s\", \"runs\": %d, \"batch\": %d, \"device\": \"%s\", \"precision\": \"%s\", \"copies\": %d,\n", words[1],
              runs, of->batch, words[3], words[4], copies);
  std::printf(" \"step\": %.4g,\n \"operations\": [", all.time(seconds, [](Opened& one) { one.play_step(); }));
  for (std::size_t i = 0; i < program.size(); ++i) {
    all.step();  // memory as a step leaves it
    const double took = all.time(seconds, [i](Opened& one) { one.play(one.program()[i]); });
    const Cost each = std::visit([&](const auto& op) { return cost(op, all.first().batch()); }, program[i]);
    const char* what = std::visit([](const auto& op) { return name(op); }, program[i]);
    std::printf("%s\n  {\"number\": %zu, \"name\": \"%s\", \"seconds\": %.4g, \"flop\": %.6g, \"bytes\": %.6g}", i ? "," : "", i, what,
                took, runs * each.flop, runs * each.bytes);
  }
  if (!all.all_alive()) throw Error("a run diverged");
  std::printf("]}\n");
  return 0;
}

}  // namespace
}  // namespace klopf::micro

int main(int count, char** words) {
  try {
    return klopf::micro::main(count, words);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "klopf-operations: %s\n", error.what());
    return 1;
  }
}
