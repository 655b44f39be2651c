// Goals of units' own: what needs a look at every sample.

void unit_firing(const UnitFiring& op, const Play& play) {
  const Units& g = op.group;
  const float* y = play.at(g.activity);
  float* counts = play.at(op.counts);
  const float level = active_level(g);
  for (int u = 0; u < g.units; ++u) counts[u] = 0;
  for (int b = 0; b < play.batch.count; ++b, y += static_cast<int64_t>(g.positions) * g.units)
    for (int u = 0; u < g.units; ++u) {
      bool active = false;
      for (int s = 0; s < g.positions && !active; ++s) active = fabsf(y[static_cast<int64_t>(s) * g.units + u]) > level;
      counts[u] += active ? 1.0f : 0.0f;
    }
}

// Scratch: each chunk's normalised activities [B, U]; then, in the first chunk's, a unit's change [fan_in] and pulls [partners].
void goal_correlation(const GoalCorrelation& op, const Play& play) {
  const Units& g = op.units.group;
  const int units = g.units, inputs = g.fan_in, partners = op.partners;
  const float *mean = play.at(g.mean_activity), *variance = play.at(g.variance);
  const uint8_t* successors = play.at(op.successors);
  const double decay = *play.at(op.correlation_decay), step_size = *play.at(op.units.step_size);
  const float total = static_cast<float>(play.batch.total);
  float* change = play.at(op.scratch) + static_cast<int64_t>(play.count_of(0)) * units;
  float* pulls = change + inputs;
  for (int c = 0; c < play.chunks; ++c) {
    const float* y = play.at(g.activity, c);
    float* normal = play.at(op.scratch, c);
    for (int b = 0; b < play.count_of(c); ++b, y += units, normal += units)
      for (int u = 0; u < units; ++u) normal[u] = normalised(y[u], mean[u], variance[u]);
  }
  // Signals of the partners are the normalised activities, or minus the gradients of a sample's loss.
  const float scale = op.listened ? -total : 1.0f;
  const auto for_samples = [&](auto visit) {
    for (int c = 0; c < play.chunks; ++c) {
      const float *y = play.at(g.activity, c), *x = play.at(op.input, c), *normal = play.at(op.scratch, c);
      const float* signals = op.listened ? play.at(op.grad_output, c) : normal;
      for (int b = 0; b < play.count_of(c); ++b, y += units, x += inputs, normal += units, signals += partners)
        visit(y, normal, x, signals);
    }
  };
  for (int u = 0; u < units; ++u) {
    float* correlation = play.at(op.correlation) + static_cast<int64_t>(u) * partners;
    if (!follows(op.units, play, 0, u)) continue;
    for (int k = 0; k < partners; ++k) pulls[k] = 0;
    for_samples([&](const float*, const float* normal, const float*, const float* signals) {
      for (int k = 0; k < partners; ++k) pulls[k] += signals[k] * normal[u];
    });
    float against = 0;
    for (int k = 0; k < partners; ++k) {
      correlation[k] = static_cast<float>(decay * correlation[k] + (1 - decay) * (pulls[k] * scale / total));
      pulls[k] = pull(op, correlation[k], successors, u, k);
      against += pulls[k] * correlation[k];
    }
    if (!varies(variance[u], mean[u])) continue;
    float bias_change = 0;
    for (int i = 0; i < inputs; ++i) change[i] = 0;
    for_samples([&](const float* y, const float* normal, const float* x, const float* signals) {
      const float slope = slope_of(op, y[u]);
      if (slope == 0) return;
      const float along = (scale * dot(pulls, signals, partners) - against * normal[u]) * slope;
      for (int i = 0; i < inputs; ++i) change[i] += along * x[i];
      bias_change += along;
    });
    float *w = play.at(g.incoming) + static_cast<int64_t>(u) * inputs, &bias = play.at(g.bias)[u];
    if (const float* wires = play.at(g.wires))
      for (int i = 0; i < inputs; ++i) change[i] *= wires[static_cast<int64_t>(u) * inputs + i];
    const float before = dot(w, w, inputs) + bias * bias;
    const float step = static_cast<float>(step_size / (sqrtf(variance[u]) * total));
    for (int i = 0; i < inputs; ++i) w[i] += step * change[i];
    bias += step * bias_change;
    const float after = dot(w, w, inputs) + bias * bias;
    const float back = after > 0 ? sqrtf(before / after) : 1.0f;
    for (int i = 0; i < inputs; ++i) w[i] *= back;
    bias *= back;
  }
  for (int u = 0; u < units; ++u)  // last, as peers look at it
    if (begins_anew(op.units, play, 0, u))
      forget(op.units, play, 0, u, play.at(op.correlation) + static_cast<int64_t>(u) * partners, partners);
}
