// Max pooling on its own (where it does not follow a convolution and ReLU, or windows overlap). Channels last.

void max_pool_forward(const MaxPoolForward& op, const Play& play) {
  const PoolShape s = op.shape;
  const float* input = play.at(op.input);
  float* output = play.at(op.output);
  uint8_t* position = play.at(op.position);
  for (int b = 0; b < play.batch.count; ++b, input += static_cast<int64_t>(s.height) * s.width * s.channels)
    for (int y = 0; y < s.out_height; ++y)
      for (int x = 0; x < s.out_width; ++x, output += s.channels, position += s.channels) {
        const float* corner = input + (static_cast<int64_t>(y) * s.stride * s.width + x * s.stride) * s.channels;
        for (int c = 0; c < s.channels; ++c) output[c] = corner[c], position[c] = 0;
        for (int w = 1; w < s.kernel * s.kernel; ++w) {
          const float* at = corner + (static_cast<int64_t>(w / s.kernel) * s.width + w % s.kernel) * s.channels;
          for (int c = 0; c < s.channels; ++c)
            if (!(at[c] <= output[c])) output[c] = at[c], position[c] = static_cast<uint8_t>(w);  // NaN wins
        }
      }
}

void max_pool_backward(const MaxPoolBackward& op, const Play& play) {
  const PoolShape s = op.shape;
  const float* grad_output = play.at(op.grad_output);
  const uint8_t* position = play.at(op.position);
  float* grad_input = play.at(op.grad_input);
  const int64_t size = static_cast<int64_t>(s.height) * s.width * s.channels;
  for (int64_t i = 0; i < size * play.batch.count; ++i) grad_input[i] = 0;
  for (int b = 0; b < play.batch.count; ++b, grad_input += size)
    for (int y = 0; y < s.out_height; ++y)
      for (int x = 0; x < s.out_width; ++x, grad_output += s.channels, position += s.channels) {
        float* corner = grad_input + (static_cast<int64_t>(y) * s.stride * s.width + x * s.stride) * s.channels;
        for (int c = 0; c < s.channels; ++c)
          corner[(static_cast<int64_t>(position[c] / s.kernel) * s.width + position[c] % s.kernel) * s.channels + c] += grad_output[c];
      }
}
