// Loading a batch, activations, losses.

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

void layer_norm_forward(const LayerNormForward& op, const Play& play) {
  const float* x = play.at(op.input);
  float *y = play.at(op.output), *inverse_std = play.at(op.inverse_std);
  for (int b = 0; b < play.batch.count; ++b, x += op.size, y += op.size) {
    const float mean = sum_of(x, op.size) / op.size;
    for (int64_t i = 0; i < op.size; ++i) y[i] = x[i] - mean;
    const float inverse = 1 / sqrtf(dot(y, y, op.size) / op.size + op.epsilon);
    for (int64_t i = 0; i < op.size; ++i) y[i] *= inverse;
    inverse_std[b] = inverse;
  }
}

// grad x = (g - mean g - y mean(g y)) / std
void layer_norm_backward(const LayerNormBackward& op, const Play& play) {
  const float *y = play.at(op.output), *inverse_std = play.at(op.inverse_std), *g = play.at(op.grad_output);
  float* grad_input = play.at(op.grad_input);
  for (int b = 0; b < play.batch.count; ++b, y += op.size, g += op.size, grad_input += op.size) {
    const float mean = sum_of(g, op.size) / op.size;
    const float along = dot(g, y, op.size) / op.size;
    for (int64_t i = 0; i < op.size; ++i) grad_input[i] = inverse_std[b] * (g[i] - mean - y[i] * along);
  }
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
