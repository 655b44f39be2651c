// Loading a batch, activations, dropout, losses.

KLOPF_FN float pixel(const float* x, int64_t i) { return x[i]; }
KLOPF_FN float pixel(const uint8_t* x, int64_t i) { return static_cast<float>(x[i]); }

template <class T>
KLOPF_FN void load_samples(const LoadBatch& op, const Batch& batch, float* output) {
  const T* x = static_cast<const T*>(batch.x);
  const int channels = op.channels, pixels = op.height * op.width;
  if (pixels == 1) {  // nothing to turn
    for (int b = 0; b < batch.count; ++b, output += channels) {
      const T* from = x + (batch.order ? batch.order[batch.first + b] : batch.first + b) * channels;
      if (!batch.scale && !batch.offset)
        for (int c = 0; c < channels; ++c) output[c] = pixel(from, c);
      else
        for (int c = 0; c < channels; ++c)
          output[c] = pixel(from, c) * (batch.scale ? batch.scale[c] : 1.0f) + (batch.offset ? batch.offset[c] : 0.0f);
    }
    return;
  }
  for (int b = 0; b < batch.count; ++b) {
    const int64_t n = batch.order ? batch.order[batch.first + b] : batch.first + b;
    const T* from = x + n * channels * pixels;
    float* to = output + static_cast<int64_t>(b) * channels * pixels;
    for (int c = 0; c < channels; ++c) {
      const float scale = batch.scale ? batch.scale[c] : 1.0f, offset = batch.offset ? batch.offset[c] : 0.0f;
      for (int p = 0; p < pixels; ++p)
        to[static_cast<int64_t>(p) * channels + c] = pixel(from, static_cast<int64_t>(c) * pixels + p) * scale + offset;
    }
  }
}

void load_batch(const LoadBatch& op, const Play& play) {
  if (play.batch.type == InputType::uint8) load_samples<uint8_t>(op, play.batch, play.at(op.output));
  else load_samples<float>(op, play.batch, play.at(op.output));
}

void square(const Square& op, const Play& play) {
  const float* input = play.at(op.input);
  float* output = play.at(op.output);
  const int64_t size = op.size * play.batch.count;
  for (int64_t i = 0; i < size; ++i) output[i] = input[i] * input[i];
}

void activation_forward(const ActivationForward& op, const Play& play) {
  const float* input = play.at(op.input);
  float* output = play.at(op.output);
  const int64_t size = op.size * play.batch.count;
  with_activation(op.kind, [&](auto f) {
    for (int64_t i = 0; i < size; ++i) output[i] = f.value(input[i], op.slope);
  });
}

void activation_backward(const ActivationBackward& op, const Play& play) {
  const float *output = play.at(op.output), *grad_output = play.at(op.grad_output);
  float* grad_input = play.at(op.grad_input);
  const int64_t size = op.size * play.batch.count;
  with_activation(op.kind, [&](auto f) {
    for (int64_t i = 0; i < size; ++i) grad_input[i] = grad_output[i] * f.slope(output[i], op.slope);
  });
}

// Four numbers share a block of random ones. A sample's depend on its place in the batch, whatever chunk it is in.
void dropout_forward(const DropoutForward& op, const Play& play) {
  const float* x = play.at(op.input);
  float* y = play.at(op.output);
  uint8_t* kept = play.at(op.kept);
  const uint64_t seed = *play.at(op.seed);
  const float scale = dropout_scale(op.probability);
  constexpr int group = 64;  // numbers that share a loop, so that the compiler can vectorise it
  for (int b = 0; b < play.batch.count; ++b, x += op.size, y += op.size, kept += op.size) {
    const uint64_t step = dropout_step(*play.at(op.step), play.batch.place + b);
    for (int64_t first = 0; first < op.size; first += group) {
      uint8_t keep[group];
#pragma GCC ivdep
      for (int k = 0; k < group / 4; ++k) {
        const Random4 r = random4(seed, Stream::dropout, static_cast<uint32_t>(op.key), step, static_cast<uint32_t>(first / 4) + k);
        for (int j = 0; j < 4; ++j) keep[k + j * (group / 4)] = uniform(r.v[j]) >= op.probability;
      }
      const int64_t count = op.size - first < group ? op.size - first : group;
      for (int64_t i = 0; i < count; ++i) {
        kept[first + i] = keep[i];
        y[first + i] = keep[i] ? scale * x[first + i] : 0.0f;
      }
    }
  }
}

void dropout_backward(const DropoutBackward& op, const Play& play) {
  const uint8_t* kept = play.at(op.kept);
  const float *grad_output = play.at(op.grad_output), scale = dropout_scale(op.probability);
  float* grad_input = play.at(op.grad_input);
  const int64_t size = op.size * play.batch.count;
  for (int64_t i = 0; i < size; ++i) grad_input[i] = kept[i] ? scale * grad_output[i] : 0.0f;
}

void loss(const Loss& op, const Play& play) {
  const Batch& batch = play.batch;
  const double per_sample = 1.0 / batch.total;
  const float* output = play.at(op.output);
  float* grad = play.at(op.grad_output);
  double sum = 0;
  int correct = 0;
  for (int b = 0; b < batch.count; ++b, output += op.outputs) {
    const int64_t n = batch.order ? batch.order[batch.first + b] : batch.first + b;
    if (op.kind == LossKind::cross_entropy) {
      const int32_t label = batch.labels[n];
      int best = 0;
      for (int o = 1; o < op.outputs; ++o) best = output[o] > output[best] ? o : best;
      correct += best == label;
      sum += cross_entropy(output, label, op.outputs, grad, per_sample);
    } else {
      sum +=
          squared(output, batch.targets + n * op.outputs, op.outputs, grad, per_sample, op.kind == LossKind::mse ? 1.0 / op.outputs : 0.5);
    }
    if (grad) grad += op.outputs;
  }
  *play.at(op.loss) = sum * per_sample;
  *play.at(op.correct) = correct;
}
