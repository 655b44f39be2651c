// One pass over all weights of a network: optimizers and perturbation.

// Clears alive unless every w is finite (w - w is 0 for finite numbers only).
KLOPF_FN void check_finite(const float* w, int64_t count, int32_t* alive) {
  float worst[16] = {};
  for (int64_t i = 0; i + 16 <= count; i += 16)
    for (int k = 0; k < 16; ++k) worst[k] += w[i + k] - w[i + k];
  for (int64_t i = count / 16 * 16; i < count; ++i) worst[0] += w[i] - w[i];
  for (int k = 0; k < 16; ++k)
    if (!(worst[k] == 0)) *alive = 0;
}

void sgd_step(const SgdStep& op, const Play& play) {
  float *w = play.at(op.weights), *v = play.at(op.momentum);
  const float* g = play.at(op.grads);
  const float alpha = static_cast<float>(*play.at(op.step_size)), mu = static_cast<float>(*play.at(op.momentum_rate));
  const float lambda = static_cast<float>(*play.at(op.weight_decay));
#pragma GCC ivdep
  for (int64_t i = 0; i < op.count; ++i) sgd_update(w[i], g[i], v[i], alpha, mu, lambda);
  check_finite(w, op.count, play.at(op.alive));
}

void adam_step(const AdamStep& op, const Play& play) {
  float *w = play.at(op.weights), *m = play.at(op.first), *v = play.at(op.second);
  const float* g = play.at(op.grads);
  int32_t* steps = play.at(op.steps);
  const double alpha = *play.at(op.step_size), beta1 = *play.at(op.beta1), beta2 = *play.at(op.beta2);
  const AdamRates rates{static_cast<float>(beta1),
                        static_cast<float>(1 - beta1),
                        static_cast<float>(beta2),
                        static_cast<float>(1 - beta2),
                        static_cast<float>(*play.at(op.epsilon)),
                        static_cast<float>(*play.at(op.weight_decay))};
  int32_t of = 0;  // the step count that `correction` is for
  AdamCorrection correction{0, 0};
  for (int64_t i = 0; i < op.count;) {
    const int32_t t = ++steps[i];
    int64_t end = i + 1;  // weights of one age are updated together
    while (end < op.count && steps[end] == t - 1) steps[end++] = t;
    if (t != of) correction = adam_correction(alpha, beta1, beta2, of = t, op.epsilon_raw);
#pragma GCC ivdep
    for (int64_t k = i; k < end; ++k) adam_update(w[k], g[k], m[k], v[k], correction, rates);
    i = end;
  }
  check_finite(w, op.count, play.at(op.alive));
}

void perturb(const Perturb& op, const Play& play) {
  float* w = play.at(op.weights);
  const float noise = static_cast<float>(*play.at(op.noise));
  const uint64_t seed = *play.at(op.seed), step = static_cast<uint64_t>(*play.at(op.step));
  constexpr int group = 64;  // weights that share a loop, so that the compiler can vectorise it
  float normal[group];
  for (int64_t i = 0; i < op.count; i += group) {
#pragma GCC ivdep
    for (int k = 0; k < group / 4; ++k) {
      const Random4 r = random4(seed, Stream::perturbation, 0, step, static_cast<uint32_t>(i / 4) + k);
      const Normal2 a = normal2(r.v[0], r.v[1]), b = normal2(r.v[2], r.v[3]);
      normal[k] = a.first, normal[k + group / 4] = a.second, normal[k + group / 2] = b.first, normal[k + 3 * (group / 4)] = b.second;
    }
    const int64_t left = op.count - i < group ? op.count - i : group;
    for (int64_t k = 0; k < left; ++k) w[i + k] += noise * normal[k];
  }
}
