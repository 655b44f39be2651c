// Utilities of a group's units: activities of the forward pass, weights after the update.

KLOPF_FN int64_t utility_scratch(const Units& g) { return static_cast<int64_t>(g.positions) * g.units * 2 + g.units * 2; }

// Mean over the batch (and over positions, unless they are kept apart) of |activity - shift|: out [kept positions, U].
KLOPF_FN void mean_deviation(const Units& g, const float* activity, int count, const float* shift, float* out) {
  const int kept = g.weights_by_position ? g.positions : 1;
  for (int i = 0; i < kept * g.units; ++i) out[i] = 0;
  for (int b = 0; b < count; ++b)
    for (int s = 0; s < g.positions; ++s, activity += g.units) {
      float* to = out + (g.weights_by_position ? static_cast<int64_t>(s) * g.units : 0);
      for (int u = 0; u < g.units; ++u) {
        const float y = shift ? activity[u] - shift[u] : activity[u];
        to[u] += y < 0 ? -y : y;
      }
    }
  const float per_sample = 1.0f / (static_cast<float>(count) * static_cast<float>(g.weights_by_position ? 1 : g.positions));
  for (int i = 0; i < kept * g.units; ++i) out[i] *= per_sample;
}

void unit_utility(const UnitUtility& op, const Play& play) {
  const Units& g = op.group;
  const int count = play.batch.count, units = g.units, kept = g.weights_by_position ? g.positions : 1;
  const float *activity = play.at(g.activity), *outgoing = play.at(g.outgoing), *incoming = play.at(g.incoming);
  float *mean = play.at(g.mean_trace), *centre = play.at(g.mean_activity);
  int32_t* age = play.at(g.age);
  float* magnitudes = play.at(op.scratch);  // [kept, U] sum of |outgoing weights|
  float* deviation = magnitudes + static_cast<int64_t>(g.positions) * units;
  float *batch_mean = deviation + static_cast<int64_t>(g.positions) * units, *contribution = batch_mean + units;
  const double decay = *play.at(op.utility_decay);

  for (int u = 0; u < units; ++u) batch_mean[u] = 0;
  for (int64_t i = 0; i < static_cast<int64_t>(count) * g.positions; ++i)
    for (int u = 0; u < units; ++u) batch_mean[u] += activity[i * units + u];
  const float per_place = 1.0f / (static_cast<float>(count) * static_cast<float>(g.positions));
  for (int u = 0; u < units; ++u) {
    age[u] += 1;
    mean[u] = static_cast<float>(decay * mean[u] + (1 - decay) * (batch_mean[u] * per_place));
    centre[u] = static_cast<float>(mean[u] / (1 - pow(decay, static_cast<double>(age[u]))));
  }

  for (int i = 0; i < kept * units; ++i) magnitudes[i] = 0;
  for (int o = 0; o < g.outputs; ++o)
    for (int k = 0; k < g.taps; ++k, outgoing += units) {
      float* to = magnitudes + (g.weights_by_position ? static_cast<int64_t>(k) * units : 0);
      for (int u = 0; u < units; ++u) to[u] += outgoing[u] < 0 ? -outgoing[u] : outgoing[u];
    }

  const float per_kept = 1.0f / static_cast<float>(kept);
  float* last = play.at(g.last_activity);
  mean_deviation(g, activity, count, nullptr, deviation);
  for (int u = 0; u < units; ++u) {
    last[u] = contribution[u] = 0;
    for (int s = 0; s < kept; ++s) {
      last[u] += deviation[s * units + u] * per_kept;
      contribution[u] += deviation[s * units + u] * magnitudes[s * units + u] * per_kept;
    }
  }
  mean_deviation(g, activity, count, centre, deviation);

  const uint64_t seed = *play.at(op.seed), step = static_cast<uint64_t>(*play.at(op.step));
  float *trace = play.at(g.utility_trace), *utility = play.at(g.utility);
  UtilityMeasures::with(op.measure, [&](auto measure) {
    for (int u = 0; u < units; ++u) {
      UnitSignals signals{
          0, sum_of_magnitudes(incoming + static_cast<int64_t>(u) * g.fan_in, g.fan_in) / static_cast<float>(g.fan_in), contribution[u], 0,
          0, uniform_at(seed, Stream::random_utility, static_cast<uint32_t>(g.place), step, static_cast<uint32_t>(u))};
      for (int s = 0; s < kept; ++s) {
        signals.outgoing += magnitudes[s * units + u] * per_kept;
        signals.centred_activity += deviation[s * units + u] * per_kept;
        signals.centred_contribution += deviation[s * units + u] * magnitudes[s * units + u] * per_kept;
      }
      const float value = measure.value(signals);
      if constexpr (is_averaged<decltype(measure)>()) {
        trace[u] = static_cast<float>(decay * trace[u] + (1 - decay) * value);
        utility[u] = static_cast<float>(trace[u] / (1 - pow(decay, static_cast<double>(age[u]))));
      } else {
        utility[u] = value;
      }
    }
  });
}
