// Which units were replaced: at the last step, and, where events are kept in mind, before.

#include <algorithm>
#include <cstring>
#include <utility>

#include "klopf/learner.hpp"

namespace klopf {

// What was replaced at the last step; nothing in runs that no longer learn.
Later<std::vector<std::vector<uint8_t>>> Learner::replaced() const {
  using Masks = std::vector<std::vector<uint8_t>>;
  const std::size_t runs = static_cast<std::size_t>(network_->runs());
  Masks masks;
  masks.reserve(network_->units().size());
  for (const Units& g : network_->units()) masks.emplace_back(static_cast<std::size_t>(g.units) * runs);
  if (replaced_.empty()) return masks;
  // The masks and what lies between them, in one copy.
  const uint64_t first = replaced_.front().offset, last = replaced_.back().offset + static_cast<uint64_t>(network_->units().back().units);
  const auto read = [first, last, runs, places = replaced_](Masks all, const std::vector<char>& bytes, const std::vector<int32_t>& alive) {
    for (std::size_t k = 0; k < all.size(); ++k)
      for (std::size_t r = 0, units = all[k].size() / runs; r < runs; ++r)
        if (alive[r]) std::memcpy(all[k].data() + units * r, bytes.data() + (last - first) * r + places[k].offset - first, units);
    return all;
  };
  auto bytes = blocks_.region_later(first, last);
  auto alive = blocks_.fetch_later(alive_);
  if (!network_->together()) return read(std::move(masks), bytes.get(), alive.get());
  return Later<Masks>([=]() mutable { return read(masks, bytes.get(), alive.get()); });
}

std::vector<int64_t> Learner::events_counted() const {
  return log_.capacity > 0 ? blocks_.fetch(log_.count) : std::vector<int64_t>(static_cast<std::size_t>(network_->runs()));
}

std::vector<Event> Learner::events() const {
  std::vector<Event> all;
  if (log_.capacity == 0) return all;
  const std::size_t capacity = static_cast<std::size_t>(log_.capacity);
  const std::vector<int64_t> counts = events_counted(), steps = blocks_.fetch(log_.step, capacity);
  const std::vector<int32_t> groups = blocks_.fetch(log_.group, capacity), units = blocks_.fetch(log_.unit, capacity),
                             ages = blocks_.fetch(log_.age, capacity), causes = blocks_.fetch(log_.cause, capacity);
  const std::vector<float> utilities = blocks_.fetch(log_.utility, capacity);
  for (int run = 0; run < network_->runs(); ++run) {
    const int64_t count = counts[static_cast<std::size_t>(run)];
    for (int64_t k = std::max<int64_t>(0, count - log_.capacity); k < count; ++k) {
      const std::size_t at = static_cast<std::size_t>(run) * capacity + static_cast<std::size_t>(k % log_.capacity);
      all.push_back({run, groups[at], units[at], steps[at], ages[at], utilities[at], causes[at]});
    }
  }
  return all;
}

}  // namespace klopf
