// Everything that an agent goes on from, as arrays: taken and put back.

#include <algorithm>
#include <cstring>
#include <iterator>
#include <map>
#include <optional>

#include "klopf/error.hpp"
#include "klopf/stream.hpp"

namespace klopf {
namespace {

void expect(bool holds, const std::string& claim) {
  if (!holds) throw Error("[stream] load_state: " + claim);
}

constexpr const char* owners[] = {"policy.", "value."};
constexpr const char *moments_name = "observation_moments.", *scale_name = "reward_scale.";

}  // namespace

std::vector<Array> StreamAgent::own_state() const {
  std::vector<Array> all = read_slots(layout_, blocks_, {});
  all.push_back(array_of("counts", {2}, std::vector<int64_t>{step_, begun_}));
  all.push_back(array_of("traces_cut", {runs_}, cut_));
  all.push_back(array_of("time", {runs_}, time_));
  all.push_back(array_of("observation", {runs_, inputs_}, first_));
  for (Array& array : moments_.state(moments_name)) all.push_back(std::move(array));
  for (Array& array : scale_.state(scale_name)) all.push_back(std::move(array));
  return all;
}

// Adds those of both networks, by their names.
template <class Of>
void StreamAgent::of_both(std::vector<Array>& all, Of of) const {
  const std::optional<TraceLearner>* learners[] = {&policy_, &value_};
  for (int k = 0; k < 2; ++k)
    if (*learners[k])
      for (Array& array : of(**learners[k])) {
        array.name = owners[k] + array.name;
        all.push_back(std::move(array));
      }
}

std::vector<Array> StreamAgent::state() const {
  std::vector<Array> all = own_state();
  of_both(all, [](const TraceLearner& learner) { return learner.state(); });
  return all;
}

std::vector<Array> StreamAgent::step_sizes() const {
  std::vector<Array> all;
  of_both(all, [](const TraceLearner& learner) { return learner.step_sizes(); });
  return all;
}

void StreamAgent::load_state(const std::vector<Array>& arrays) {
  std::vector<Array> of_learner[2], own;
  for (const Array& array : arrays) {
    const auto owner = std::find_if(std::begin(owners), std::end(owners), [&](const char* name) { return array.name.starts_with(name); });
    std::vector<Array>& to = owner == std::end(owners) ? own : of_learner[owner - owners];
    to.push_back(array);
    if (owner != std::end(owners)) to.back().name = array.name.substr(std::strlen(*owner));
  }
  // All or nothing.
  std::optional<TraceLearner>* learners[] = {&policy_, &value_};
  for (int k = 0; k < 2; ++k) {
    expect(*learners[k] || of_learner[k].empty(), "there is no policy");
    if (*learners[k]) (*learners[k])->check_state(of_learner[k]);
  }
  std::map<std::string, Array> known;
  for (Array& array : own_state()) known.emplace(array.name, std::move(array));
  expect(own.size() == known.size(),
         "expected " + std::to_string(known.size()) + " arrays beside the networks', got " + std::to_string(own.size()));
  for (const Array& array : own) {
    const auto found = known.find(array.name);
    expect(found != known.end(), "does not know \"" + array.name + "\"");
    const Array& like = found->second;
    expect(array.type == like.type && array.shape == like.shape && array.data.size() == like.data.size(),
           "\"" + array.name + "\" does not fit");
  }
  for (int k = 0; k < 2; ++k)
    if (*learners[k]) (*learners[k])->load_state(of_learner[k]);
  std::vector<Array> slots;
  for (const Array& array : own) {
    moments_.load(moments_name, array);
    scale_.load(scale_name, array);
    int64_t counts[2];
    if (array.name == "counts") std::memcpy(counts, array.data.data(), sizeof counts), step_ = counts[0], begun_ = counts[1] != 0;
    else if (array.name == "traces_cut") std::memcpy(cut_.data(), array.data.data(), array.data.size());
    else if (array.name == "time") std::memcpy(time_.data(), array.data.data(), array.data.size());
    else if (array.name == "observation") std::memcpy(first_.data(), array.data.data(), array.data.size());
    else if (std::any_of(layout_.slots().begin(), layout_.slots().end(), [&](const Slot& slot) { return slot.name == array.name; }))
      slots.push_back(array);
  }
  write_slots(layout_, blocks_, {}, slots, "load_state");
  if (begun_) look_again();
}

}  // namespace klopf
