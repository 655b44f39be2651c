// One pass over all weights of a network: optimizers and perturbation.

// Weights that are updated together: one pass brings them into the first-level cache, adds up the chunks' gradients, and looks for
// numbers that are not finite.
constexpr int64_t weights_at_once = 1024;

// Whether all of w are finite (w - w is 0 for finite numbers only). count is a multiple of 16, as all weights together are.
KLOPF_FN bool all_finite(const float* w, int64_t count) {
  V worst[16 / lanes] = {};
  for (int64_t i = 0; i < count; i += 16)
    for (int k = 0; k < 16 / lanes; ++k) {
      const V x = load(w + i + k * lanes);
      worst[k] += x - x;
    }
  float all[16];
  for (int k = 0; k < 16 / lanes; ++k) store(all + k * lanes, worst[k]);
  bool finite = true;
  for (const float x : all) finite &= x == 0;
  return finite;
}

// Calls visit(first, end, gradients from first on) for all weights, a few at a time, then marks a run that is no longer finite.
template <class Visit>
KLOPF_FN void for_weights(const Play& play, int64_t count, const float* w, Ref<float> grads, Ref<int32_t> alive, Visit visit) {
  bool finite = true;
  float* g = play.at(grads);
  for (int64_t first = 0; first < count; first += weights_at_once) {
    const int64_t end = count - first < weights_at_once ? count : first + weights_at_once;
    for (int c = 1; c < play.chunks; ++c) {
      const float* more = play.at(grads, c);
#pragma GCC ivdep
      for (int64_t i = first; i < end; ++i) g[i] += more[i];
    }
    visit(first, end, g);
    finite &= all_finite(w + first, end - first);
  }
  if (!finite) *play.at(alive) = 0;
}

void add_chunks(const AddChunks& op, const Play& play) {
  float* sum = play.at(op.values);
  for (int c = 1; c < play.chunks; ++c) {
    float* more = play.at(op.values, c);
#pragma GCC ivdep
    for (int64_t i = 0; i < op.count; ++i) sum[i] += more[i], more[i] = 0;
  }
}

void update_traces(const UpdateTraces& op, const Play& play) {
  const float *g = play.at(op.grads), decay = static_cast<float>(*play.at(op.decay));
  float* e = play.at(op.traces);
#pragma GCC ivdep
  for (int64_t i = 0; i < op.count; ++i) e[i] = decay * e[i] + g[i];
}

void trace_gradient(const TraceGradient& op, const Play& play) {
  const float *e = play.at(op.traces), delta = static_cast<float>(*play.at(op.delta));
  float* g = play.at(op.grads);
#pragma GCC ivdep
  for (int64_t i = 0; i < op.count; ++i) g[i] = -delta * e[i];
}

void clip_gradient(const ClipGradient& op, const Play& play) {
  add_chunks({op.count, op.grads}, play);
  float* g = play.at(op.grads);
  double parts[16] = {};
  for (int64_t i = 0; i < op.count; i += 16)
    for (int k = 0; k < 16; ++k) parts[k] += static_cast<double>(g[i + k]) * g[i + k];
  const float scale = clip_scale(*play.at(op.max_norm), parts);
  if (scale < 1)
#pragma GCC ivdep
    for (int64_t i = 0; i < op.count; ++i) g[i] *= scale;
}

void sgd_step(const SgdStep& op, const Play& play) {
  float *w = play.at(op.weights), *v = play.at(op.momentum);
  const float* w0 = play.at(op.origin);
  const float alpha = static_cast<float>(*play.at(op.step_size)), mu = static_cast<float>(*play.at(op.momentum_rate));
  const float lambda = static_cast<float>(*play.at(op.weight_decay));
  for_weights(play, op.count, w, op.grads, op.alive, [&](int64_t first, int64_t end, const float* g) {
    if (v && w0)
#pragma GCC ivdep
      for (int64_t i = first; i < end; ++i) sgd_update(w[i], g[i], v[i], alpha, mu, lambda, w0[i]);
    else if (v)
#pragma GCC ivdep
      for (int64_t i = first; i < end; ++i) sgd_update(w[i], g[i], v[i], alpha, mu, lambda);
    else if (w0)
#pragma GCC ivdep
      for (int64_t i = first; i < end; ++i) sgd_update(w[i], g[i], alpha, lambda, w0[i]);
    else
#pragma GCC ivdep
      for (int64_t i = first; i < end; ++i) sgd_update(w[i], g[i], alpha, lambda);
  });
}

constexpr int together = 64;  // weights whose ages are looked at together

// Bias corrections by age, each computed once a pass by `make`: continual backprop leaves the weights of a row with many ages.
template <class Make>
class Corrections {
 public:
  KLOPF_MEMBER_FN Corrections(int32_t settled, Make make) : make_(make), settled_(settled) {
    for (int k = 0; k < places; ++k) ages_[k] = 0;
  }
  // Of a weight that took so many steps before this one.
  KLOPF_MEMBER_FN int32_t age(int32_t steps) const { return steps < settled_ ? steps + 1 : settled_; }
  KLOPF_MEMBER_FN bool all_of(int32_t wanted, const int32_t* steps) const {
    int32_t others = 0;
    for (int k = 0; k < together; ++k) others |= age(steps[k]) ^ wanted;
    return others == 0;
  }
  KLOPF_MEMBER_FN AdamCorrection at(int32_t age) {
    const uint32_t place = static_cast<uint32_t>(age) % places;
    if (ages_[place] != age) {
      const AdamCorrection found = make_(age);
      ages_[place] = age, step_[place] = found.step, root_[place] = found.root;
    }
    return {step_[place], root_[place]};
  }
  // Of `count` weights.
  KLOPF_MEMBER_FN void of(const int32_t* steps, int64_t count, float* step, float* root) {
    if (count == together && all_of(age(steps[0]), steps)) {
      const AdamCorrection found = at(age(steps[0]));
      for (int k = 0; k < together; ++k) step[k] = found.step, root[k] = found.root;
      return;
    }
    int32_t missing = 0;
    for (int64_t k = 0; k < count; ++k) {
      const int32_t wanted = age(steps[k]);
      const uint32_t place = static_cast<uint32_t>(wanted) % places;
      missing |= ages_[place] ^ wanted;
      step[k] = step_[place], root[k] = root_[place];
    }
    if (missing == 0) return;
    for (int64_t k = 0; k < count; ++k) {
      const AdamCorrection found = at(age(steps[k]));
      step[k] = found.step, root[k] = found.root;
    }
  }

 private:
  static constexpr int places = 512;
  Make make_;
  int32_t settled_, ages_[places];
  float step_[places], root_[places];
};

// Counts a step of the weights from first to last, of one age or of several: one(from, to, correction), several(from, to, steps, roots).
template <class Make, class One, class Several>
KLOPF_FN void for_ages(Corrections<Make>& corrections, int32_t* steps, int64_t first, int64_t last, One one, Several several) {
  for (int64_t i = first; i < last;) {
    const int32_t age = corrections.age(steps[i]);
    int64_t end = i;
    for (; end + together <= last && corrections.all_of(age, steps + end); end += together)
      for (int k = 0; k < together; ++k) ++steps[end + k];
    if (end > i) {
      one(i, end, corrections.at(age));
    } else {
      float step[together], root[together];
      end = last - i < together ? last : i + together;
      corrections.of(steps + i, end - i, step, root);
      for (int64_t k = i; k < end; ++k) ++steps[k];
      several(i, end, step, root);
    }
    i = end;
  }
}

void adam_step(const AdamStep& op, const Play& play) {
  float *w = play.at(op.weights), *m = play.at(op.first), *v = play.at(op.second);
  const float* w0 = play.at(op.origin);
  int32_t* steps = play.at(op.steps);
  const double alpha = *play.at(op.step_size), beta1 = *play.at(op.beta1), beta2 = *play.at(op.beta2);
  const AdamRates rates = adam_rates(alpha, beta1, beta2, *play.at(op.epsilon), *play.at(op.weight_decay), op.decoupled);
  const bool raw = op.epsilon_raw;
  Corrections corrections(adam_settled(beta1, beta2), [=](int32_t age) { return adam_correction(alpha, beta1, beta2, age, raw); });
  for_weights(play, op.count, w, op.grads, op.alive, [&](int64_t first, int64_t last, const float* g) {
    for_ages(
        corrections, steps, first, last,
        [&](int64_t from, int64_t to, AdamCorrection correction) {
          if (w0)
#pragma GCC ivdep
            for (int64_t k = from; k < to; ++k) adam_update(w[k], g[k], m[k], v[k], correction, rates, w0[k]);
          else
#pragma GCC ivdep
            for (int64_t k = from; k < to; ++k) adam_update(w[k], g[k], m[k], v[k], correction, rates);
        },
        [&](int64_t from, int64_t to, const float* step, const float* root) {
#pragma GCC ivdep
          for (int64_t k = from; k < to; ++k)
            adam_update(w[k], g[k], m[k], v[k], {step[k - from], root[k - from]}, rates, w0 ? w0[k] : 0.0f);
        });
  });
}

// Normal numbers of the weights from `first` (a multiple of 64) to first + 63.
constexpr int normals = 64;
KLOPF_FN void draw_normals(uint64_t seed, Stream stream, int32_t key, uint64_t step, int64_t first, float* normal) {
#pragma GCC ivdep
  for (int k = 0; k < normals / 4; ++k) {
    const Random4 r = random4(seed, stream, static_cast<uint32_t>(key), step, static_cast<uint32_t>(first / 4) + k);
    const Normal2 a = normal2(r.v[0], r.v[1]), b = normal2(r.v[2], r.v[3]);
    normal[k] = a.first, normal[k + normals / 4] = a.second, normal[k + normals / 2] = b.first, normal[k + 3 * (normals / 4)] = b.second;
  }
}

// Utilities of all weights first, of which the largest is asked; then the weights.
void upgd_step(const UpgdStep& op, const Play& play) {
  float *w = play.at(op.weights), *u = play.at(op.utility);
  int32_t* steps = play.at(op.steps);
  const double beta = *play.at(op.utility_decay);
  const UpgdRates rates = upgd_rates(*play.at(op.step_size), beta, *play.at(op.weight_decay), *play.at(op.noise), *play.at(op.factor));
  const uint64_t seed = *play.at(op.seed), step = static_cast<uint64_t>(*play.at(op.step));
  Corrections corrections(adam_settled(0, beta), [=](int32_t age) { return AdamCorrection{upgd_correction(beta, age), 1.0f}; });
  add_chunks({op.count, op.grads}, play);
  const float* g = play.at(op.grads);
  float correction[normals], unused[normals], largest[16] = {};
  const auto blocks = [&](auto visit) {
    for (int64_t first = 0; first < op.count; first += normals) {
      const int64_t end = op.count - first < normals ? op.count : first + normals;
      corrections.of(steps + first, end - first, correction, unused);
      visit(first, end);
    }
  };
  blocks([&](int64_t first, int64_t end) {
    for (int64_t i = first; i < end; i += 16)
#pragma GCC ivdep
      for (int k = 0; k < 16; ++k) {
        upgd_utility(u[i + k], w[i + k], g[i + k], rates);
        const float seen = op.maximum_corrected ? u[i + k] * correction[i - first + k] : u[i + k];
        largest[k] = seen > largest[k] ? seen : largest[k];
      }
  });
  float maximum = 0;
  for (const float x : largest) maximum = x > maximum ? x : maximum;
  bool finite = true;
  blocks([&](int64_t first, int64_t end) {
    float xi[normals];
    draw_normals(seed, Stream::gradient_noise, op.key, step, first, xi);
#pragma GCC ivdep
    for (int64_t i = first; i < end; ++i) {
      ++steps[i];
      upgd_update(w[i], g[i], u[i] * correction[i - first], maximum, xi[i - first], rates);
    }
    finite &= all_finite(w + first, end - first);
  });
  if (!finite) *play.at(op.alive) = 0;
}

void perturb(const Perturb& op, const Play& play) {
  float* w = play.at(op.weights);
  const float noise = static_cast<float>(*play.at(op.noise));
  const uint64_t seed = *play.at(op.seed), step = static_cast<uint64_t>(*play.at(op.step));
  float normal[normals];
  for (int64_t i = 0; i < op.count; i += normals) {
    draw_normals(seed, Stream::perturbation, op.key, step, i, normal);
    const int64_t left = op.count - i < normals ? op.count - i : normals;
    for (int64_t k = 0; k < left; ++k) w[i + k] += noise * normal[k];
  }
}
