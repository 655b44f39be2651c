// Convolutions, channels last, without a patch matrix. A row of a patch (kernel_width x channels) is contiguous in the image.
//
// Backward works from a list, for each output channel, of the places with a gradient that is not zero: behind ReLU and 2x2
// max pooling at most a quarter of them. A place adds g * patch to the weights' gradient and g * weights to the input's.

KLOPF_FN int64_t padded_size(const ConvShape& s) {
  return static_cast<int64_t>(s.height + 2 * s.padding) * (s.width + 2 * s.padding) * s.channels;
}
KLOPF_FN int row_length(const ConvShape& s) { return s.kernel_width * s.channels; }
KLOPF_FN int row_stride(const ConvShape& s) { return (s.width + 2 * s.padding) * s.channels; }
KLOPF_FN int patch_length(const ConvShape& s) { return s.kernel_height * row_length(s); }
KLOPF_FN int round_up(int n, int to) { return (n + to - 1) / to * to; }

// The image with zeros around it, or the image itself where there is no padding.
KLOPF_FN const float* padded_image(const ConvShape& s, const float* image, float* buffer) {
  if (s.padding == 0) return image;
  const int64_t size = padded_size(s), row = static_cast<int64_t>(s.width) * s.channels;
  for (int64_t i = 0; i < size; ++i) buffer[i] = 0;
  for (int y = 0; y < s.height; ++y) {
    float* to = buffer + static_cast<int64_t>(y + s.padding) * row_stride(s) + s.padding * s.channels;
    for (int64_t i = 0; i < row; ++i) to[i] = image[y * row + i];
  }
  return buffer;
}

KLOPF_FN void convolve(const ConvShape& s, int channels, const float* const patches[tile_rows], const float* packed, Tile& tile) {
  const int length = row_length(s), stride = row_stride(s);
  const float* at[tile_rows] = {patches[0], patches[1], patches[2], patches[3]};
  for (int ky = 0; ky < s.kernel_height; ++ky) {
    multiply_add(tile, channels, at, 1, packed, block, length);
    packed += static_cast<int64_t>(length) * block;
    for (int i = 0; i < tile_rows; ++i) at[i] += stride;
  }
}

KLOPF_FN int64_t patch_offset(const ConvShape& s, int y, int x) {
  return (static_cast<int64_t>(y) * s.stride * (s.width + 2 * s.padding) + static_cast<int64_t>(x) * s.stride) * s.channels;
}

KLOPF_FN int64_t packed_size(const ConvShape& s) { return static_cast<int64_t>(round_up(s.outputs, block)) * patch_length(s); }

void conv_forward(const ConvForward& op, const Play& play) {
  const ConvShape s = op.shape;
  const float *weight = play.at(op.weight), *bias = play.at(op.bias), *input = play.at(op.input);
  float *packed = play.at(op.scratch), *buffer = packed + packed_size(s), *output = play.at(op.output);
  pack_blocks(weight, s.outputs, patch_length(s), packed);
  const int pixels = s.out_height * s.out_width;
  for (int b = 0; b < play.batch.count; ++b) {
    const float* image = padded_image(s, input + static_cast<int64_t>(b) * s.height * s.width * s.channels, buffer);
    for (int o = 0; o < s.outputs; o += block) {
      V low, high;
      load_bias(bias, o, s.outputs, low, high);
      for (int p = 0; p < pixels; p += tile_rows) {
        const float* patches[tile_rows];
        for (int i = 0; i < tile_rows; ++i) {
          const int pixel = p + i < pixels ? p + i : pixels - 1;
          patches[i] = image + patch_offset(s, pixel / s.out_width, pixel % s.out_width);
        }
        Tile tile;
        convolve(s, s.outputs - o, patches, packed + static_cast<int64_t>(o) * patch_length(s), tile);
        for (int i = 0; i < tile_rows && p + i < pixels; ++i)
          store_channels(output + (static_cast<int64_t>(b) * pixels + p + i) * s.outputs + o, tile.row[i][0] + low, tile.row[i][1] + high,
                         s.outputs - o);
      }
    }
  }
}

void conv_relu_pool_forward(const ConvReluPoolForward& op, const Play& play) {
  const ConvShape s = op.shape;
  const float *weight = play.at(op.weight), *bias = play.at(op.bias), *input = play.at(op.input);
  float *packed = play.at(op.scratch), *buffer = packed + packed_size(s), *output = play.at(op.output);
  uint8_t* position = play.at(op.position);
  pack_blocks(weight, s.outputs, patch_length(s), packed);
  const int window = op.window * op.window, pooled = op.pooled_height * op.pooled_width;
  for (int b = 0; b < play.batch.count; ++b) {
    const float* image = padded_image(s, input + static_cast<int64_t>(b) * s.height * s.width * s.channels, buffer);
    for (int o = 0; o < s.outputs; o += block) {
      const float* weights = packed + static_cast<int64_t>(o) * patch_length(s);
      V bias_low, bias_high;
      load_bias(bias, o, s.outputs, bias_low, bias_high);
      for (int p = 0; p < pooled; ++p) {
        const int top = p / op.pooled_width * op.window, left = p % op.pooled_width * op.window;
        V best[2] = {broadcast(-__builtin_inff()), broadcast(-__builtin_inff())};
        VI where[2] = {};
        for (int w = 0; w < window; w += tile_rows) {
          const float* patches[tile_rows];
          for (int i = 0; i < tile_rows; ++i) {
            const int at = w + i < window ? w + i : window - 1;
            patches[i] = image + patch_offset(s, top + at / op.window, left + at % op.window);
          }
          Tile tile;
          convolve(s, s.outputs - o, patches, weights, tile);
          for (int i = 0; i < tile_rows && w + i < window; ++i)
            for (int h = 0; h < 2; ++h) {
              const VI keep = tile.row[i][h] <= best[h];  // false for NaN, which so wins
              best[h] = keep ? best[h] : tile.row[i][h];
              where[h] = keep ? where[h] : where[h] * 0 + (w + i);
            }
        }
        const int64_t to = (static_cast<int64_t>(b) * pooled + p) * s.outputs + o;
        best[0] += bias_low, best[1] += bias_high;
        for (int h = 0; h < 2; ++h) where[h] = best[h] <= zero() ? where[h] * 0 + int32_t{no_position} : where[h];
        store_channels(output + to, relu(best[0]), relu(best[1]), s.outputs - o);
        const int valid = s.outputs - o < block ? s.outputs - o : block;
        for (int i = 0; i < valid; ++i) position[to + i] = static_cast<uint8_t>(where[i / lanes][i % lanes]);
      }
    }
  }
}

// A place with a gradient: where its patch begins in the chunk of images.
struct Place {
  float grad;
  int32_t patch;
};
constexpr int64_t list_bytes = 128 * 1024;  // the lists of a chunk of images stay in the second-level cache

KLOPF_FN int images_per_chunk(const ConvShape& s, int places) {
  const int64_t one = static_cast<int64_t>(s.outputs) * places * static_cast<int64_t>(sizeof(Place));
  const int64_t images = list_bytes / one;
  return images < 1 ? 1 : images > 64 ? 64 : static_cast<int>(images);
}

// Adds to Rows rows of Segments registers of one channel's weight gradient, which stay in registers over all its places.
template <int Rows, int Segments>
KLOPF_FN void gather(const Place* places, int count, const float* image, int stride, float* grad, int grad_stride) {
  V sum[Rows][Segments];
  for (int r = 0; r < Rows; ++r)
    for (int i = 0; i < Segments; ++i) sum[r][i] = load(grad + r * grad_stride + i * lanes);
  for (int n = 0; n < count; ++n) {
    const V g = broadcast(places[n].grad);
    const float* x = image + places[n].patch;
    for (int r = 0; r < Rows; ++r)
      for (int i = 0; i < Segments; ++i) sum[r][i] = fma(g, load(x + static_cast<int64_t>(r) * stride + i * lanes), sum[r][i]);
  }
  for (int r = 0; r < Rows; ++r)
    for (int i = 0; i < Segments; ++i) store(grad + r * grad_stride + i * lanes, sum[r][i]);
}

template <int Segments>
KLOPF_FN int gather_rows(const Place* places, int count, const float* image, int stride, float* grad, int grad_stride, int rows) {
  constexpr int together = Segments <= 2 ? 5 : Segments <= 4 ? 3 : Segments <= 6 ? 2 : 1;
  int r = 0;
  for (; r + together <= rows; r += together)
    gather<together, Segments>(places, count, image + static_cast<int64_t>(r) * stride, stride, grad + r * grad_stride, grad_stride);
  for (; r < rows; ++r)
    gather<1, Segments>(places, count, image + static_cast<int64_t>(r) * stride, stride, grad + r * grad_stride, grad_stride);
  return Segments * lanes;
}

KLOPF_FN void gather_weight_gradient(const Place* places, int count, const float* image, int stride, float* grad, int grad_stride,
                                     int rows) {
  for (int done = 0; done < grad_stride;) {
    const int left = (grad_stride - done) / lanes;
    const float* x = image + done;
    float* g = grad + done;
    if (left >= 12) done += gather_rows<12>(places, count, x, stride, g, grad_stride, rows);
    else if (left >= 8) done += gather_rows<8>(places, count, x, stride, g, grad_stride, rows);
    else if (left >= 6) done += gather_rows<6>(places, count, x, stride, g, grad_stride, rows);
    else if (left >= 4) done += gather_rows<4>(places, count, x, stride, g, grad_stride, rows);
    else if (left >= 2) done += gather_rows<2>(places, count, x, stride, g, grad_stride, rows);
    else done += gather_rows<1>(places, count, x, stride, g, grad_stride, rows);
  }
}

// Adds g * weights of one channel to the patches of its places.
KLOPF_FN void scatter_input_gradient(const Place* places, int count, const float* weight, float* image, int stride, int length, int rows) {
  const int whole = length / lanes * lanes;
  for (int n = 0; n < count; ++n) {
    const V g = broadcast(places[n].grad);
    float* x = image + places[n].patch;
    const float* w = weight;
    for (int r = 0; r < rows; ++r, x += stride, w += length) {
      for (int i = 0; i < whole; i += lanes) store(x + i, fma(g, load(w + i), load(x + i)));
      for (int i = whole; i < length; ++i) x[i] += places[n].grad * w[i];
    }
  }
}

// What the two backward passes share: `list_places(image in chunk, b, lists, counts)` fills the lists of one image.
struct ConvGradients {
  const float *input, *weight;
  float *grad_weight, *grad_bias, *grad_input, *scratch;
};
KLOPF_FN int64_t list_size(const ConvShape& s, int places) {  // floats
  return static_cast<int64_t>(s.outputs) * places * images_per_chunk(s, places) * 2;
}
KLOPF_FN int64_t backward_scratch(const ConvShape& s, int places) {
  const int64_t images = s.padding ? 2 * images_per_chunk(s, places) * padded_size(s) : 0;
  const int64_t grad = static_cast<int64_t>(s.outputs) * s.kernel_height * round_up(row_length(s), lanes);
  return images + list_size(s, places) + s.outputs + grad + 64;
}

template <class ListPlaces>
KLOPF_FN void conv_backward_from_lists(const ConvShape& s, const ConvGradients& g, int count, int places, ListPlaces list_places) {
  const int chunk = images_per_chunk(s, places), length = row_length(s), stride = row_stride(s);
  const int grad_stride = round_up(length, lanes), rows = s.kernel_height;
  const int64_t image_size = static_cast<int64_t>(s.height) * s.width * s.channels, padded = padded_size(s);
  const int64_t capacity = static_cast<int64_t>(places) * chunk, grad_size = static_cast<int64_t>(rows) * grad_stride;
  float* grad = g.scratch;  // [outputs, rows, grad_stride]
  int32_t* counts = reinterpret_cast<int32_t*>(grad + s.outputs * grad_size);
  Place* lists = reinterpret_cast<Place*>(counts + round_up(s.outputs, 2));
  float* images = reinterpret_cast<float*>(lists + s.outputs * capacity);
  float* grad_images = images + chunk * padded;

  for (int64_t i = 0; i < s.outputs * grad_size; ++i) grad[i] = 0;
  for (int o = 0; o < s.outputs; ++o) g.grad_bias[o] = 0;
  for (int first = 0; first < count; first += chunk) {
    const int size = count - first < chunk ? count - first : chunk;
    const float* image = g.input + first * image_size;
    float* grad_image = g.grad_input ? g.grad_input + first * image_size : nullptr;
    if (s.padding) {
      for (int b = 0; b < size; ++b) padded_image(s, image + b * image_size, images + b * padded);
      image = images;
    }
    float* grad_to = s.padding ? grad_images : grad_image;
    for (int o = 0; o < s.outputs; ++o) counts[o] = 0;
    for (int b = 0; b < size; ++b) list_places(first + b, static_cast<int32_t>(b * padded), lists, counts, capacity);
    if (grad_image)
      for (int64_t i = 0; i < size * padded; ++i) grad_to[i] = 0;
    for (int o = 0; o < s.outputs; ++o) {
      const Place* list = lists + o * capacity;
      float bias = g.grad_bias[o];
      for (int n = 0; n < counts[o]; ++n) bias += list[n].grad;
      g.grad_bias[o] = bias;
      gather_weight_gradient(list, counts[o], image, stride, grad + o * grad_size, grad_stride, rows);
      if (grad_image)
        scatter_input_gradient(list, counts[o], g.weight + static_cast<int64_t>(o) * rows * length, grad_to, stride, length, rows);
    }
    if (grad_image && s.padding)
      for (int b = 0; b < size; ++b)
        for (int y = 0; y < s.height; ++y) {
          const float* from = grad_images + b * padded + static_cast<int64_t>(y + s.padding) * stride + s.padding * s.channels;
          float* to = grad_image + b * image_size + static_cast<int64_t>(y) * s.width * s.channels;
          for (int i = 0; i < s.width * s.channels; ++i) to[i] = from[i];
        }
  }
  for (int o = 0; o < s.outputs; ++o)
    for (int r = 0; r < rows; ++r)
      for (int i = 0; i < length; ++i)
        g.grad_weight[(static_cast<int64_t>(o) * rows + r) * length + i] = grad[o * grad_size + static_cast<int64_t>(r) * grad_stride + i];
}

void conv_backward(const ConvBackward& op, const Play& play) {
  const ConvShape s = op.shape;
  const int pixels = s.out_height * s.out_width;
  const float* grad_output = play.at(op.grad_output);
  const ConvGradients gradients{play.at(op.input),     play.at(op.weight),     play.at(op.grad_weight),
                                play.at(op.grad_bias), play.at(op.grad_input), play.at(op.scratch)};
  const auto list_places = [&](int b, int32_t origin, Place* lists, int32_t* counts, int64_t capacity) {
    const float* grad = grad_output + static_cast<int64_t>(b) * pixels * s.outputs;
    for (int p = 0; p < pixels; ++p, grad += s.outputs) {
      const int32_t patch = origin + static_cast<int32_t>(patch_offset(s, p / s.out_width, p % s.out_width));
      for (int o = 0; o < s.outputs; ++o) {
        lists[o * capacity + counts[o]] = {grad[o], patch};
        counts[o] += grad[o] != 0.0f;
      }
    }
  };
  conv_backward_from_lists(s, gradients, play.batch.count, pixels, list_places);
}

void conv_relu_pool_backward(const ConvReluPoolBackward& op, const Play& play) {
  const ConvShape s = op.shape;
  const int pooled = op.pooled_height * op.pooled_width, window = op.window;
  const float* grad_output = play.at(op.grad_output);
  const uint8_t* position = play.at(op.position);
  int32_t inside[256];  // from the window's first patch to the one at a position
  for (int w = 0; w < window * window; ++w) inside[w] = static_cast<int32_t>(patch_offset(s, w / window, w % window));
  inside[no_position] = 0;
  const ConvGradients gradients{play.at(op.input),     play.at(op.weight),     play.at(op.grad_weight),
                                play.at(op.grad_bias), play.at(op.grad_input), play.at(op.scratch)};
  const auto list_places = [&](int b, int32_t origin, Place* lists, int32_t* counts, int64_t capacity) {
    const int64_t from = static_cast<int64_t>(b) * pooled * s.outputs;
    const float* grad = grad_output + from;
    const uint8_t* at = position + from;
    for (int p = 0; p < pooled; ++p, grad += s.outputs, at += s.outputs) {
      const int32_t patch = origin + static_cast<int32_t>(patch_offset(s, p / op.pooled_width * window, p % op.pooled_width * window));
      for (int o = 0; o < s.outputs; ++o) {
        lists[o * capacity + counts[o]] = {grad[o], patch + inside[at[o]]};
        counts[o] += (at[o] != no_position) & (grad[o] != 0.0f);
      }
    }
  };
  conv_backward_from_lists(s, gradients, play.batch.count, pooled, list_places);
}
