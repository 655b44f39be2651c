// The goal to be listened to, by perturbation.

void remember_outgoing(const RememberOutgoing& op, const Play& play) {
  const Units& g = op.group;
  if (play.batch.place > 0) return;  // the first chunk's memory is what is looked at
  __builtin_memcpy(play.at(op.before), play.at(g.outgoing), sizeof(float) * static_cast<uint64_t>(g.outputs) * g.taps * g.units);
}

// Rewards of all units.
KLOPF_FN void find_rewards(const GoalPerturbation& op, const Play& play) {
  const Units& g = op.units.group;
  const float *now = play.at(g.outgoing), *before = play.at(op.before);
  float* reward = play.at(op.reward);
  for (int u = 0; u < g.units; ++u) reward[u] = 0;
  for (int o = 0; o < g.outputs; ++o)
    for (int k = 0; k < g.taps; ++k, now += g.units, before += g.units)
      if (counts(op, play, 0, o))
#pragma GCC ivdep
        for (int u = 0; u < g.units; ++u) reward[u] += fabsf(now[u]) - fabsf(before[u]);
  for (int u = 0; u < g.units; ++u) reward[u] = reward_of(reward[u], play.at(g.variance)[u], play.at(g.mean_activity)[u]);
}

void goal_perturbation(const GoalPerturbation& op, const Play& play) {
  const Units& g = op.units.group;
  const int inputs = g.fan_in, row = inputs + 1;
  const float noise = static_cast<float>(*play.at(op.noise)), trace_decay = static_cast<float>(*play.at(op.trace_decay));
  const double step_size = *play.at(op.units.step_size), baseline_decay = *play.at(op.baseline_decay);
  const uint64_t seed = *play.at(op.seed), step = static_cast<uint64_t>(*play.at(op.step));
  find_rewards(op, play);
  const float* reward = play.at(op.reward);
  double sum = 0;
  int followers = 0;
  for (int u = 0; u < g.units; ++u)
    if (follows(op.units, play, 0, u)) sum += reward[u], ++followers;
  const float usual = usual_of_peers(sum, followers);
  float normal[normals];
  int64_t drawn = -1;  // the first number in `normal`
  const auto draw = [&](int64_t i) {
    if (i / normals * normals != drawn) {
      drawn = i / normals * normals;
      draw_normals(seed, Stream::goal_perturbation, g.key, step, drawn, normal);
    }
    return normal[i - drawn];
  };
  for (int u = 0; u < g.units; ++u) {
    const int64_t first = static_cast<int64_t>(u) * row;
    float *w = play.at(g.incoming) + static_cast<int64_t>(u) * inputs, &bias = play.at(g.bias)[u], &scale = play.at(op.scale)[u];
    float *xi = play.at(op.perturbation) + first, *trace = play.at(op.trace) + first;
    const float* wires = g.wires.present() ? play.at(g.wires) + static_cast<int64_t>(u) * inputs : nullptr;
    for (int i = 0; i < inputs && wires; ++i)  // a wire that was dropped has left its perturbation
      if (wires[i] == 0) xi[i] = trace[i] = 0;
    if (begins_anew(op.units, play, 0, u)) {
      forget_perturbation(op, play, 0, u);
    } else {
      for (int i = 0; i < inputs; ++i) w[i] -= scale * xi[i];
      bias -= scale * xi[inputs];
    }
    if (!follows(op.units, play, 0, u)) {
      for (int i = 0; i < row; ++i) xi[i] = trace[i] = 0;
      scale = 0;
      continue;
    }
    const float squares = dot(w, w, inputs) + bias * bias, size = size_of_weight(squares, inputs);
    const float more =
        advantage(reward[u] - usual, baseline_decay, play.at(op.compared)[u], play.at(op.baseline)[u], play.at(op.square)[u]);
    const float along = static_cast<float>(step_size * more * size);
    for (int i = 0; i < row; ++i) trace[i] = trace_decay * trace[i] + xi[i];
    for (int i = 0; i < inputs; ++i) w[i] += along * trace[i];
    bias += along * trace[inputs];
    const float after = dot(w, w, inputs) + bias * bias, back = after > 0 ? sqrtf(squares / after) : 1.0f;
    if (draws(op, play, 0, scale))
      for (int i = 0; i < row; ++i) xi[i] = draw(first + i) * (i < inputs ? wire(wires, i) : 1.0f);
    scale = noise * size;
    for (int i = 0; i < inputs; ++i) w[i] = w[i] * back + scale * xi[i];
    bias = bias * back + scale * xi[inputs];
  }
}
