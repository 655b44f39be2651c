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

// Seconds of what work(copy) does: the median of samples that take a share of `seconds` each, many rounds over all copies and one wait;
// a round is one graph on devices that have them.
template <class F>
double time(Opened& opened, double seconds, F work) {
  const auto round = [&] {
    for (int copy = 0; copy < opened.copies(); ++copy) work(copy);
  };
  round();
  const std::shared_ptr<Graph> graph = opened.record(round);
  std::vector<double> found;
  for (int64_t rounds = 1; found.size() < samples;) {
    const auto start = std::chrono::steady_clock::now();
    for (int64_t i = 0; i < rounds; ++i) graph ? graph->play() : round();
    opened.wait();
    const double took = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (took * samples >= seconds || !found.empty()) found.push_back(took / static_cast<double>(rounds * opened.copies()));
    else rounds = std::max(2 * rounds, static_cast<int64_t>(1.2 * seconds / samples / took * static_cast<double>(rounds)));
  }
  std::nth_element(found.begin(), found.begin() + samples / 2, found.end());
  return found[samples / 2];
}

int main(int count, char** words) {
  if (count != 7) throw Error("expected NETWORK RUNS DEVICE PRECISION SECONDS COPIES");
  const std::string wanted = words[1], device = words[3], precision = words[4];
  const int runs = std::atoi(words[2]), copies = std::atoi(words[6]);
  const double seconds = std::atof(words[5]);
  const std::vector<Case> known = cases();
  const auto of = std::find_if(known.begin(), known.end(), [&](const Case& c) { return c.name == wanted; });
  if (of == known.end()) throw Error("no network is called " + wanted);
  if (runs < 1 || copies < 1) throw Error("RUNS and COPIES must be at least 1");

  Opened opened(*of, runs, device, precision, copies);
  const Program& program = opened.program();
  std::printf("{\"network\": \"%s\", \"runs\": %d, \"batch\": %d, \"device\": \"%s\", \"precision\": \"%s\", \"copies\": %d,\n", words[1],
              runs, of->batch, words[3], words[4], opened.copies());
  std::printf(" \"step\": %.4g,\n \"operations\": [", time(opened, seconds, [&](int copy) { opened.play_step(copy); }));
  for (std::size_t i = 0; i < program.size(); ++i) {
    for (int copy = 0; copy < opened.copies(); ++copy) opened.play_step(copy);  // memory as a step leaves it
    const double took = time(opened, seconds, [&](int copy) { opened.play(program[i], copy); });
    const Cost each = std::visit([&](const auto& op) { return cost(op, opened.batch()); }, program[i]);
    const char* what = std::visit([](const auto& op) { return name(op); }, program[i]);
    std::printf("%s\n  {\"number\": %zu, \"name\": \"%s\", \"seconds\": %.4g, \"flop\": %.6g, \"bytes\": %.6g}", i ? "," : "", i, what,
                took, runs * each.flop, runs * each.bytes);
  }
  if (!opened.all_alive()) throw Error("a run diverged");
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
