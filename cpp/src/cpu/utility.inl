// How active a group's units were, from the forward pass; and their utilities, with the weights after the update.

KLOPF_FN int kept_positions(const Units& g) { return g.weights_by_position ? g.positions : 1; }

// Adds to magnitudes [kept positions, U] |activity - shift| over samples and positions that are not kept apart; and where asked to
// signed_sum [U] the activity, and to squares [U] its square, over all positions. Four rows are summed side by side, so that additions need not wait for each other.
template <bool with_sign, bool with_square>
KLOPF_FN void add_activity(const Units& g, const float* activity, int count, const float* shift, float* magnitudes, float* signed_sum,
                           float* squares) {
  const int kept = kept_positions(g), units = g.units;
  const int64_t rows = static_cast<int64_t>(count) * g.positions / kept, distance = static_cast<int64_t>(kept) * units;
  for (int k = 0; k < kept; ++k, activity += units, magnitudes += units) {
    const auto columns = [&]<int n>(Number<n>, int u, auto get, auto put) {
      V s[n], size[n][4] = {}, sum[n][4] = {}, square[n][4] = {};
      for (int c = 0; c < n; ++c) s[c] = shift ? get(shift + u + c * lanes) : V{};
      const auto take = [&](const float* from, int c, int i) {
        const V y = get(from + c * lanes);
        size[c][i] += magnitude(shift ? y - s[c] : y);
        if constexpr (with_sign) sum[c][i] += y;
        if constexpr (with_square) square[c][i] += y * y;
      };
      const float* y = activity + u;
      int64_t r = 0;
      for (; r + 4 <= rows; r += 4, y += 4 * distance)
        for (int i = 0; i < 4; ++i)
          for (int c = 0; c < n; ++c) take(y + i * distance, c, i);
      for (int i = 0; r < rows; ++r, ++i, y += distance)
        for (int c = 0; c < n; ++c) take(y, c, i);
      const auto add = [&](float* to, const V(&part)[4]) { put(to, get(to) + ((part[0] + part[1]) + (part[2] + part[3]))); };
      for (int c = 0; c < n; ++c) {
        add(magnitudes + u + c * lanes, size[c]);
        if constexpr (with_sign) add(signed_sum + u + c * lanes, sum[c]);
        if constexpr (with_square) add(squares + u + c * lanes, square[c]);
      }
    };
    int u = 0;  // whole rows where they are not long: what lies side by side is read together
    if constexpr (!with_sign)
      for (; u + 4 * lanes <= units; u += 4 * lanes)
        columns(Number<4>{}, u, [](const float* p) { return load(p); }, [](float* p, V v) { store(p, v); });
    for (; u + 2 * lanes <= units; u += 2 * lanes)
      columns(Number<2>{}, u, [](const float* p) { return load(p); }, [](float* p, V v) { store(p, v); });
    for_lanes(units - u, [&](int i, auto get, auto put) { columns(Number<1>{}, u + i, get, put); });
  }
}

void unit_activity(const UnitActivity& op, const Play& play) {
  const Units& g = op.group;
  float *signed_sum = play.at(op.sums.signed_sum), *magnitudes = play.at(op.sums.magnitude), *squares = play.at(op.sums.square);
  for (int i = 0; i < kept_positions(g) * g.units; ++i) magnitudes[i] = 0;
  for (int u = 0; u < g.units; ++u) signed_sum[u] = 0;
  if (!squares) return add_activity<true, false>(g, play.at(g.activity), play.batch.count, nullptr, magnitudes, signed_sum, nullptr);
  for (int u = 0; u < g.units; ++u) squares[u] = 0;
  add_activity<true, true>(g, play.at(g.activity), play.batch.count, nullptr, magnitudes, signed_sum, squares);
}

KLOPF_FN int64_t utility_scratch(const Units& g) { return static_cast<int64_t>(g.positions) * g.units * 2 + g.units * 2; }

// 1 - decay^age in float64, remembered for the age last asked for: most units of a layer share theirs.
struct Correction {
  double decay, value = 0;
  int32_t age = -1;
  KLOPF_MEMBER_FN double operator()(int32_t of) {
    if (of == age) return value;
    age = of;
    // decay^age < exp(-40), which one minus it does not show
    return value = (1 - decay) * age > 40 ? 1 : 1 - pow(decay, static_cast<double>(age));
  }
};

void unit_utility(const UnitUtility& op, const Play& play) {
  const Units& g = op.group;
  const int units = g.units, kept = kept_positions(g);
  const float *outgoing = play.at(g.outgoing), *incoming = play.at(g.incoming);
  float *mean = play.at(g.mean_trace), *centre = play.at(g.mean_activity), *last = play.at(g.last_activity);
  int32_t* age = play.at(g.age);
  float* magnitudes = play.at(op.scratch);  // [kept, U] sum of |outgoing weights|
  float* deviation = magnitudes + static_cast<int64_t>(kept) * units;
  float *sum = deviation + static_cast<int64_t>(kept) * units, *contribution = sum + units, *squares = contribution;
  float* variance = play.at(g.variance);
  const double decay = *play.at(op.utility_decay);
  Correction correction{decay};

  for (int u = 0; u < units; ++u) sum[u] = 0;
  for (int i = 0; i < kept * units; ++i) deviation[i] = 0;
  for (int c = 0; c < play.chunks; ++c) {
    const float *signed_sum = play.at(op.sums.signed_sum, c), *magnitude_sum = play.at(op.sums.magnitude, c);
    for (int u = 0; u < units; ++u) sum[u] += signed_sum[u];
    for (int i = 0; i < kept * units; ++i) deviation[i] += magnitude_sum[i];
  }
  const float total = static_cast<float>(play.batch.total);
  const float per_place = 1.0f / (total * static_cast<float>(g.positions));
  const float per_kept = 1.0f / static_cast<float>(kept), per_sample = 1.0f / (total * static_cast<float>(g.positions / kept));
  if (variance) {
    for (int u = 0; u < units; ++u) squares[u] = 0;
    for (int c = 0; c < play.chunks; ++c)
      for (int u = 0; u < units; ++u) squares[u] += play.at(op.sums.square, c)[u];
  }
  for (int u = 0; u < units; ++u) {
    const float now = sum[u] * per_place;
    age[u] += 1;
    if (variance) variance[u] = running_variance(variance[u], centre[u], now, squares[u] * per_place, (1 - decay) / correction(age[u]));
    mean[u] = static_cast<float>(decay * mean[u] + (1 - decay) * now);
    centre[u] = static_cast<float>(mean[u] / correction(age[u]));
  }

  for (int i = 0; i < kept * units; ++i) magnitudes[i] = 0;
  const int taps = g.taps / kept;  // of an output, for each place that is kept
  for (int o = 0; o < g.outputs; ++o)
    for (int k = 0; k < kept; ++k)
      for (int t = 0; t < taps; ++t, outgoing += units) {
        float* to = magnitudes + static_cast<int64_t>(k) * units;
        for (int u = 0; u < units; ++u) to[u] += outgoing[u] < 0 ? -outgoing[u] : outgoing[u];
      }

  for (int u = 0; u < units; ++u) last[u] = contribution[u] = 0;
  for (int k = 0; k < kept; ++k)
    for (int u = 0; u < units; ++u) {
      const float active = deviation[k * units + u] * per_sample;
      last[u] += active * per_kept;
      contribution[u] += active * magnitudes[k * units + u] * per_kept;
    }

  float *trace = play.at(g.utility_trace), *utility = play.at(g.utility);
  UtilityMeasures::with(op.measure, [&](auto measure) {
    using Measure = decltype(measure);
    if constexpr (Measure::needs.centred) {
      for (int i = 0; i < kept * units; ++i) deviation[i] = 0;
      for (int c = 0; c < play.chunks; ++c)
        add_activity<false, false>(g, play.at(g.activity, c), play.count_of(c), centre, deviation, nullptr, nullptr);
    }
    float* outgoing_squares = deviation;
    if constexpr (Measure::needs.variance) {
      for (int u = 0; u < units; ++u) outgoing_squares[u] = 0;
      const uint8_t* counts = play.at(op.successors);
      const float* weight = play.at(g.outgoing);
      for (int o = 0; o < g.outputs; ++o, weight += static_cast<int64_t>(g.taps) * units)
        for (int i = 0; i < g.taps * units && (!counts || counts[o]); i += units)
          for (int u = 0; u < units; ++u) outgoing_squares[u] += weight[i + u] * weight[i + u];
    }
    for (int u = 0; u < units; ++u) {
      UnitSignals signals{0, 0, contribution[u], 0, 0, 0, 0, 0};
      if constexpr (Measure::needs.incoming)
        signals.incoming = sum_of_magnitudes(incoming + static_cast<int64_t>(u) * g.fan_in, g.fan_in) / static_cast<float>(g.fan_in);
      if constexpr (Measure::needs.uniform)
        signals.uniform = uniform_at(*play.at(op.seed), Stream::random_utility, static_cast<uint32_t>(g.key),
                                     static_cast<uint64_t>(*play.at(op.step)), static_cast<uint32_t>(u));
      if constexpr (Measure::needs.variance) {
        signals.variance = variance[u];
        signals.outgoing_squares = outgoing_squares[u];
      }
      for (int k = 0; k < kept; ++k) {
        const float outgoing_magnitude = magnitudes[k * units + u], active = deviation[k * units + u] * per_sample;
        signals.outgoing += outgoing_magnitude * per_kept;
        if constexpr (Measure::needs.centred) {
          signals.centred_activity += active * per_kept;
          signals.centred_contribution += active * outgoing_magnitude * per_kept;
        }
      }
      const float value = measure.value(signals);
      if constexpr (Measure::averaged) {
        trace[u] = static_cast<float>(decay * trace[u] + (1 - decay) * value);
        utility[u] = static_cast<float>(trace[u] / correction(age[u]));
      } else {
        utility[u] = value;
      }
    }
  });
}
