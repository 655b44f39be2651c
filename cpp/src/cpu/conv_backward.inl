// Convolutions backward, from lists of the places with a gradient that is not zero: behind ReLU and 2x2 max pooling at most a
// quarter of them.
//
// Both gradients are one computation, rows of sums that stay in registers:
//   of the weights:  for a filter, over the places where it was active:  sum of g * patch of the image
//   of the input:    for a place, over the filters active there:         sum of g * weights of the filter
// Channels are taken a register's width at a time (a slice), copied together first, so that what is read again and again fits the
// first-level cache and a patch's row is a few whole registers. Where channels do not fill registers, all are one slice; patches
// then begin anywhere, and half registers of AVX-512 (as fast, since two are loaded at a time) cross fewer cache lines.
#if defined(__AVX512F__)
typedef H Anywhere;
#else
typedef V Anywhere;
#endif

struct Slices {
  int count, channels;    // channels of one
  int row, padded_row;    // floats of a patch's row, and of one in the gradients and weights: whole registers
  int stride;             // floats of an image's row
  int64_t image, filter;  // floats
  bool copied;            // else the images as they are
  bool anywhere;          // patches begin anywhere, not at multiples of a register
};
KLOPF_FN Slices slices_of(const ConvShape& s) {
  Slices v;
  const bool whole = s.channels % lanes != 0;
  v.channels = whole ? s.channels : lanes;
  v.count = s.channels / v.channels;
  v.row = s.kernel_width * v.channels;
  v.padded_row = round_up(v.row, whole ? width_of<Anywhere> : lanes);
  v.anywhere = whole;
  v.stride = (s.width + 2 * s.padding) * v.channels;
  v.image = static_cast<int64_t>(s.height + 2 * s.padding) * v.stride;
  v.filter = static_cast<int64_t>(s.kernel_height) * v.padded_row;
  v.copied = v.count > 1 || s.padding > 0;
  return v;
}
KLOPF_FN int32_t place_of(const ConvShape& s, const Slices& v, int y, int x) {
  return static_cast<int32_t>(static_cast<int64_t>(y) * s.stride * v.stride + static_cast<int64_t>(x) * s.stride * v.channels);
}

// Images that are worked on together: a slice of them in the first-level cache, their lists in the second.
KLOPF_FN int images_per_chunk(const ConvShape& s, const Slices& v, int places) {
  const int64_t by_slice = 24 * 1024 / (v.image * 4);
  const int64_t by_lists = 256 * 1024 / (static_cast<int64_t>(s.outputs) * places * 2 * 8);
  const int64_t images = by_slice < by_lists ? by_slice : by_lists;
  return images < 1 ? 1 : images > 64 ? 64 : static_cast<int>(images);
}

// One slice of a row of pixels, [pixels, from_channels] to [pixels, to_channels].
KLOPF_FN void copy_channels(const float* from, int from_channels, float* to, int to_channels, int pixels, int channels) {
  if (channels == lanes)
    for (int x = 0; x < pixels; ++x, from += from_channels, to += to_channels) store(to, load(from));
  else
    for (int x = 0; x < pixels; ++x, from += from_channels, to += to_channels)
      for (int c = 0; c < channels; ++c) to[c] = from[c];
}
// One slice of an image with zeros around it; and back, without them.
KLOPF_FN void copy_slice(const ConvShape& s, const Slices& v, const float* image, float* to) {
  if (s.padding)
    for (int64_t i = 0; i < v.image; ++i) to[i] = 0;
  to += static_cast<int64_t>(s.padding) * v.stride + s.padding * v.channels;
  for (int y = 0; y < s.height; ++y, to += v.stride, image += s.width * s.channels)
    copy_channels(image, s.channels, to, v.channels, s.width, v.channels);
}
KLOPF_FN void copy_slice_back(const ConvShape& s, const Slices& v, const float* from, float* image) {
  from += static_cast<int64_t>(s.padding) * v.stride + s.padding * v.channels;
  for (int y = 0; y < s.height; ++y, from += v.stride, image += s.width * s.channels)
    copy_channels(from, v.channels, image, s.channels, s.width, v.channels);
}

// Filters [O, KH, KW, C] as slices [slice, O, KH, padded row], zeros at the end of rows; and gradients back.
KLOPF_FN void slice_filters(const ConvShape& s, const Slices& v, const float* weight, float* to) {
  for (int slice = 0; slice < v.count; ++slice)
    for (int row = 0; row < s.outputs * s.kernel_height; ++row, to += v.padded_row) {
      const float* from = weight + static_cast<int64_t>(row) * s.kernel_width * s.channels + slice * v.channels;
      copy_channels(from, s.channels, to, v.channels, s.kernel_width, v.channels);
      for (int i = v.row; i < v.padded_row; ++i) to[i] = 0;
    }
}
KLOPF_FN void join_filters(const ConvShape& s, const Slices& v, const float* from, float* grad_weight) {
  for (int slice = 0; slice < v.count; ++slice)
    for (int row = 0; row < s.outputs * s.kernel_height; ++row, from += v.padded_row) {
      float* to = grad_weight + static_cast<int64_t>(row) * s.kernel_width * s.channels + slice * v.channels;
      copy_channels(from, v.channels, to, s.channels, s.kernel_width, v.channels);
    }
}

struct ConvGradients {
  const float *input, *weight;
  float *grad_weight, *grad_bias, *grad_input, *scratch;
};

// Scratch memory of a backward pass, cut into arrays of floats or int32.
struct ConvBackwardScratch {
  int chunk, pixels;
  int64_t filters, filter_capacity, pixel_capacity, floats;
  float *grads, *weights, *images, *grad_images, *filter_grads, *pixel_grads;
  int32_t *filter_ats, *pixel_ats, *filter_counts, *pixel_counts, *offsets;
  KLOPF_MEMBER_FN ConvBackwardScratch(const ConvShape& s, const Slices& v, int places, float* memory) {
    constexpr int64_t slack = lanes;  // where whole registers are read and written
    chunk = images_per_chunk(s, v, places);
    pixels = s.out_height * s.out_width;
    filters = s.outputs * v.filter;  // floats of a slice
    filter_capacity = static_cast<int64_t>(places) * chunk + slack;
    pixel_capacity = s.outputs + slack;
    const int64_t in_chunk = static_cast<int64_t>(chunk) * pixels;
    floats = 0;
    const auto take = [&](int64_t count) { return memory + (floats += round_up(count, 16)) - round_up(count, 16); };
    const auto take_int = [&](int64_t count) { return reinterpret_cast<int32_t*>(take(count)); };
    grads = take(v.count * filters);
    weights = take(v.count * filters);
    images = take(chunk * v.image + slack);
    grad_images = take(chunk * v.image + slack);
    filter_grads = take(round_up(s.outputs, lanes) * filter_capacity);
    filter_ats = take_int(round_up(s.outputs, lanes) * filter_capacity);
    pixel_grads = take(in_chunk * pixel_capacity);
    pixel_ats = take_int(in_chunk * pixel_capacity);
    filter_counts = take_int(round_up(s.outputs, lanes));
    pixel_counts = take_int(in_chunk);
    offsets = take_int(filter_capacity);
  }
};
KLOPF_FN int64_t backward_scratch(const ConvShape& s, int places) { return ConvBackwardScratch(s, slices_of(s), places, nullptr).floats; }

// The output's gradient is [batch, height x width places, filters]; a place is a window of `window` x `window` output pixels.
KLOPF_FN void conv_backward_from(const ConvShape& s, const ConvGradients& g, const OutputGradient& from, int count, int height, int width,
                                 int window) {
  const Slices v = slices_of(s);
  const int places = height * width;
  const ConvBackwardScratch m(s, v, places, g.scratch);
  const int64_t image_size = static_cast<int64_t>(s.height) * s.width * s.channels;
  int32_t inside[256] = {}, pixel_inside[256] = {};  // from the window's first patch and pixel to those at a position
  for (int w = 0; w < window * window; ++w) {
    inside[w] = place_of(s, v, w / window, w % window);
    pixel_inside[w] = w / window * s.out_width + w % window;
  }
  for (int b = 0; b < m.chunk; ++b)
    for (int p = 0; p < places; ++p)
      m.offsets[b * places + p] = static_cast<int32_t>(b * v.image) + place_of(s, v, p / width * window, p % width * window);
  const auto gather_any = [&](List list, int n, const float* from, int from_stride, float* to, int to_stride) {
    if (v.anywhere) gather<Anywhere>(list, n, from, from_stride, to, to_stride, s.kernel_height, v.padded_row);
    else gather<V>(list, n, from, from_stride, to, to_stride, s.kernel_height, v.padded_row);
  };
  const auto filter_list = [&](int o) { return List{m.filter_grads + o * m.filter_capacity, m.filter_ats + o * m.filter_capacity}; };
  const auto pixel_list = [&](int64_t pixel) {
    return List{m.pixel_grads + pixel * m.pixel_capacity, m.pixel_ats + pixel * m.pixel_capacity};
  };

  if (g.grad_input) slice_filters(s, v, g.weight, m.weights);
  for (int64_t i = 0; i < v.count * m.filters; ++i) m.grads[i] = 0;
  for (int o = 0; o < s.outputs; ++o) g.grad_bias[o] = 0;
  for (int first = 0; first < count; first += m.chunk) {
    const int size = count - first < m.chunk ? count - first : m.chunk;
    for (int64_t i = 0; i < static_cast<int64_t>(size) * m.pixels; ++i) m.pixel_counts[i] = 0;
    if (g.grad_input)
      for (int b = 0; b < size; ++b)
        for (int p = 0; p < places; ++p) {
          const int64_t corner = static_cast<int64_t>(b) * m.pixels + p / width * window * s.out_width + p % width * window;
          List lists[256];
          int32_t counts[256];
          for (int w = 0; w < window * window; ++w) lists[w] = pixel_list(corner + pixel_inside[w]), counts[w] = 0;
          list_pixels(from, static_cast<int64_t>(first + b) * places + p, window * window, static_cast<int32_t>(v.filter), lists, counts);
          for (int w = 0; w < window * window; ++w) m.pixel_counts[corner + pixel_inside[w]] = counts[w];
        }
    for (int slice = 0; slice < v.count; ++slice) {
      const float* images = g.input + first * image_size;
      if (v.copied) {
        for (int b = 0; b < size; ++b) copy_slice(s, v, images + b * image_size + slice * v.channels, m.images + b * v.image);
        images = m.images;
      }
      for (int o = 0; o < s.outputs; ++o) {
        if (slice == 0 && o % lanes == 0) {
          List lists[lanes];
          for (int k = 0; k < lanes; ++k) lists[k] = filter_list(o + k);
          list_filters(from, static_cast<int64_t>(first) * places, static_cast<int64_t>(size) * places, o, m.offsets, inside,
                       window * window, lists, m.filter_counts + o, g.grad_bias + o);
        }
        gather_any(filter_list(o), m.filter_counts[o], images, v.stride, m.grads + slice * m.filters + o * v.filter, v.padded_row);
      }
      if (!g.grad_input) continue;
      for (int64_t i = 0; i < size * v.image; ++i) m.grad_images[i] = 0;
      for (int b = 0; b < size; ++b) {
        for (int p = 0; p < m.pixels; ++p) {
          const int64_t pixel = static_cast<int64_t>(b) * m.pixels + p;
          if (m.pixel_counts[pixel])
            gather_any(pixel_list(pixel), m.pixel_counts[pixel], m.weights + slice * m.filters, v.padded_row,
                       m.grad_images + b * v.image + place_of(s, v, p / s.out_width, p % s.out_width), v.stride);
        }
        copy_slice_back(s, v, m.grad_images + b * v.image, g.grad_input + (first + b) * image_size + slice * v.channels);
      }
    }
  }
  join_filters(s, v, m.grads, g.grad_weight);
}

void conv_backward(const ConvBackward& op, const Play& play) {
  const ConvShape s = op.shape;
  conv_backward_from(
      s,
      {play.at(op.input), play.at(op.weight), play.at(op.grad_weight), play.at(op.grad_bias), play.at(op.grad_input), play.at(op.scratch)},
      {play.at(op.grad_output), nullptr, s.outputs}, play.batch.count, s.out_height, s.out_width, 1);
}

void conv_relu_pool_backward(const ConvReluPoolBackward& op, const Play& play) {
  const ConvShape s = op.shape;
  conv_backward_from(
      s,
      {play.at(op.input), play.at(op.weight), play.at(op.grad_weight), play.at(op.grad_bias), play.at(op.grad_input), play.at(op.scratch)},
      {play.at(op.grad_output), play.at(op.position), s.outputs}, play.batch.count, op.pooled_height, op.pooled_width, op.window);
}
