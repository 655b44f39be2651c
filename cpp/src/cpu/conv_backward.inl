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

// Without the floating-point unit, and without branches.
KLOPF_FN bool is_zero(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, 4);
  return bits << 1 == 0;
}
KLOPF_FN float x_if(bool condition, float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, 4);
  bits &= -static_cast<uint32_t>(condition);
  __builtin_memcpy(&x, &bits, 4);
  return x;
}

struct Place {
  float grad;
  int32_t at;  // of the patch in the slice's images, or of the filter in the slice's weights
};

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
  const int64_t by_lists = 256 * 1024 / (static_cast<int64_t>(s.outputs) * places * 2 * static_cast<int64_t>(sizeof(Place)));
  const int64_t images = by_slice < by_lists ? by_slice : by_lists;
  return images < 1 ? 1 : images > 64 ? 64 : static_cast<int>(images);
}

// Adds to Rows rows of Columns registers, which stay in registers over the whole list.
template <class R, int Rows, int Columns>
KLOPF_FN void gather_block(const Place* list, int count, const float* from, int from_stride, float* to, int to_stride) {
  R sum[Rows][Columns];
#pragma GCC unroll 5
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 12
    for (int c = 0; c < Columns; ++c) sum[r][c] = load<R>(to + r * to_stride + c * width_of<R>);
  for (int n = 0; n < count; ++n) {
    const R g = broadcast<R>(list[n].grad);
    const float* x = from + list[n].at;
#pragma GCC unroll 5
    for (int r = 0; r < Rows; ++r, x += from_stride) {
      asm("" : "+r"(x));  // else the compiler keeps a pointer for each register, and runs out of registers for them
#pragma GCC unroll 12
      for (int c = 0; c < Columns; ++c) sum[r][c] = fma(g, load<R>(x + c * width_of<R>), sum[r][c]);
    }
  }
#pragma GCC unroll 5
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 12
    for (int c = 0; c < Columns; ++c) store(to + r * to_stride + c * width_of<R>, sum[r][c]);
}

template <class R, int Columns>
KLOPF_FN void gather_rows(const Place* list, int count, const float* from, int from_stride, float* to, int to_stride, int rows) {
  constexpr int together = Columns <= 2 ? 5 : Columns <= 4 ? 3 : Columns <= 6 ? 2 : 1;
  int r = 0;
  for (; r + together <= rows; r += together)
    gather_block<R, together, Columns>(list, count, from + r * from_stride, from_stride, to + r * to_stride, to_stride);
  for (; r < rows; ++r) gather_block<R, 1, Columns>(list, count, from + r * from_stride, from_stride, to + r * to_stride, to_stride);
}

// to[r][i] += sum over the list of grad * from[at + r][i], for `rows` rows of `length` floats (whole registers).
template <class R>
KLOPF_FN void gather(const Place* list, int count, const float* from, int from_stride, float* to, int to_stride, int rows, int length) {
  for (int left = length / width_of<R>; left > 0;) {
    const auto columns = [&]<int n>(Number<n>) {
      gather_rows<R, n>(list, count, from, from_stride, to, to_stride, rows);
      from += n * width_of<R>, to += n * width_of<R>, left -= n;
    };
    if (left >= 12) columns(Number<12>{});
    else if (left >= 8) columns(Number<8>{});
    else if (left >= 6) columns(Number<6>{});
    else if (left >= 5) columns(Number<5>{});
    else if (left >= 4) columns(Number<4>{});
    else if (left >= 3) columns(Number<3>{});
    else if (left >= 2) columns(Number<2>{});
    else columns(Number<1>{});
  }
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
KLOPF_FN int64_t backward_scratch(const ConvShape& s, int places) {
  const Slices v = slices_of(s);
  const int64_t chunk = images_per_chunk(s, v, places), pixels = static_cast<int64_t>(s.out_height) * s.out_width;
  const int64_t filters = v.count * s.outputs * v.filter, slack = 16;
  return 2 * filters + 2 * (chunk * v.image + slack) + 2 * s.outputs * chunk * (places + pixels) + s.outputs + chunk * pixels + places + 64;
}

// The places of an image are `height` x `width`, with strides of `window` pixels. `list_filter(filter, image, patches of its places, end of
// list)` adds those of one filter in one image, and their gradients to its bias's; it returns the new end. `list_pixels(slices, image, lists, counts)` makes the lists of one image's output pixels.
template <class ListFilter, class ListPixels>
KLOPF_FN void conv_backward_from_lists(const ConvShape& s, const ConvGradients& g, int count, int height, int width, int window,
                                       ListFilter list_filter, ListPixels list_pixels) {
  const Slices v = slices_of(s);
  const int places = height * width;
  const int chunk = images_per_chunk(s, v, places), pixels = s.out_height * s.out_width;
  const int64_t image_size = static_cast<int64_t>(s.height) * s.width * s.channels, filters = s.outputs * v.filter, slack = 16;
  const int64_t filter_capacity = static_cast<int64_t>(places) * chunk;
  float *grads = g.scratch, *weights = grads + v.count * filters;  // [slice, outputs, rows, padded_row]
  float *images = weights + v.count * filters, *grad_images = images + chunk * v.image + slack;
  Place* filter_lists = reinterpret_cast<Place*>(grad_images + chunk * v.image + slack);
  Place* pixel_lists = filter_lists + s.outputs * filter_capacity;  // [images, pixels, outputs], and one to waste
  int32_t* filter_counts = reinterpret_cast<int32_t*>(pixel_lists + s.outputs * static_cast<int64_t>(chunk) * pixels + 1);
  int32_t *pixel_counts = filter_counts + s.outputs, *patches = pixel_counts + static_cast<int64_t>(chunk) * pixels;
  for (int p = 0; p < places; ++p) patches[p] = place_of(s, v, p / width * window, p % width * window);
  const auto gather_any = [&](const Place* list, int n, const float* from, int from_stride, float* to, int to_stride) {
    if (v.anywhere) gather<Anywhere>(list, n, from, from_stride, to, to_stride, s.kernel_height, v.padded_row);
    else gather<V>(list, n, from, from_stride, to, to_stride, s.kernel_height, v.padded_row);
  };

  if (g.grad_input) slice_filters(s, v, g.weight, weights);
  for (int64_t i = 0; i < v.count * filters; ++i) grads[i] = 0;
  for (int o = 0; o < s.outputs; ++o) g.grad_bias[o] = 0;
  for (int first = 0; first < count; first += chunk) {
    const int size = count - first < chunk ? count - first : chunk;
    if (g.grad_input)
      for (int b = 0; b < size; ++b)
        list_pixels(v, first + b, pixel_lists + static_cast<int64_t>(b) * pixels * s.outputs,
                    pixel_counts + static_cast<int64_t>(b) * pixels);
    for (int slice = 0; slice < v.count; ++slice) {
      const float* from = g.input + first * image_size;
      if (v.copied) {
        for (int b = 0; b < size; ++b) copy_slice(s, v, from + b * image_size + slice * v.channels, images + b * v.image);
        from = images;
      }
      for (int o = 0; o < s.outputs; ++o) {
        Place* const list = filter_lists + (v.count > 1 ? o * filter_capacity : 0);  // kept for the next slice
        if (slice == 0) {
          Place* end = list;
          for (int b = 0; b < size; ++b) end = list_filter(o, first + b, static_cast<int32_t>(b * v.image), patches, end);
          filter_counts[o] = static_cast<int32_t>(end - list);
        }
        gather_any(list, filter_counts[o], from, v.stride, grads + slice * filters + o * v.filter, v.padded_row);
      }
      if (!g.grad_input) continue;
      for (int64_t i = 0; i < size * v.image; ++i) grad_images[i] = 0;
      for (int b = 0; b < size; ++b) {
        const Place* list = pixel_lists + static_cast<int64_t>(b) * pixels * s.outputs;
        const int32_t* counts = pixel_counts + static_cast<int64_t>(b) * pixels;
        for (int y = 0, p = 0; y < s.out_height; ++y)
          for (int x = 0; x < s.out_width; ++x, ++p)
            if (counts[p])
              gather_any(list + static_cast<int64_t>(p) * s.outputs, counts[p], weights + slice * filters, v.padded_row,
                         grad_images + b * v.image + place_of(s, v, y, x), v.stride);
        copy_slice_back(s, v, grad_images + b * v.image, g.grad_input + (first + b) * image_size + slice * v.channels);
      }
    }
  }
  join_filters(s, v, grads, g.grad_weight);
}

void conv_backward(const ConvBackward& op, const Play& play) {
  const ConvShape s = op.shape;
  const int pixels = s.out_height * s.out_width;
  const float* grad_output = play.at(op.grad_output);
  const ConvGradients gradients{play.at(op.input),     play.at(op.weight),     play.at(op.grad_weight),
                                play.at(op.grad_bias), play.at(op.grad_input), play.at(op.scratch)};
  const auto list_filter = [&](int o, int image, int32_t origin, const int32_t* patches, Place* end) {
    const float* grad = grad_output + static_cast<int64_t>(image) * pixels * s.outputs + o;
    float bias = gradients.grad_bias[o];
    for (int p = 0; p < pixels; ++p, grad += s.outputs) {
      *end = {*grad, origin + patches[p]};
      end += !is_zero(*grad);
      bias += *grad;
    }
    gradients.grad_bias[o] = bias;
    return end;
  };
  const auto list_pixels = [&](const Slices& v, int image, Place* list, int32_t* counts) {
    const float* grad = grad_output + static_cast<int64_t>(image) * pixels * s.outputs;
    for (int p = 0; p < pixels; ++p, grad += s.outputs, list += s.outputs) {
      Place* end = list;
      for (int o = 0; o < s.outputs; ++o) {
        *end = {grad[o], static_cast<int32_t>(o * v.filter)};
        end += !is_zero(grad[o]);
      }
      counts[p] = static_cast<int32_t>(end - list);
    }
  };
  conv_backward_from_lists(s, gradients, play.batch.count, s.out_height, s.out_width, 1, list_filter, list_pixels);
}

void conv_relu_pool_backward(const ConvReluPoolBackward& op, const Play& play) {
  const ConvShape s = op.shape;
  const int pooled = op.pooled_height * op.pooled_width, pixels = s.out_height * s.out_width, window = op.window;
  const float* grad_output = play.at(op.grad_output);
  const uint8_t* position = play.at(op.position);
  const ConvGradients gradients{play.at(op.input),     play.at(op.weight),     play.at(op.grad_weight),
                                play.at(op.grad_bias), play.at(op.grad_input), play.at(op.scratch)};
  const Slices slices = slices_of(s);
  int32_t inside[256] = {}, pixel_inside[256] = {};  // from the window's first patch and pixel to those at a position
  for (int w = 0; w < window * window; ++w) {
    inside[w] = place_of(s, slices, w / window, w % window);
    pixel_inside[w] = w / window * s.out_width + w % window;
  }
  const auto list_filter = [&](int o, int image, int32_t origin, const int32_t* patches, Place* end) {
    const int64_t from = static_cast<int64_t>(image) * pooled * s.outputs + o;
    const float* grad = grad_output + from;
    const uint8_t* at = position + from;
    float bias = gradients.grad_bias[o];
    for (int p = 0; p < pooled; ++p, grad += s.outputs, at += s.outputs) {
      const bool passed = *at != no_position;
      *end = {*grad, origin + patches[p] + inside[*at]};
      end += passed & !is_zero(*grad);
      bias += x_if(passed, *grad);
    }
    gradients.grad_bias[o] = bias;
    return end;
  };
  const auto list_pixels = [&](const Slices& v, int image, Place* lists, int32_t* counts) {
    const int64_t from = static_cast<int64_t>(image) * pooled * s.outputs;
    const float* grad = grad_output + from;
    const uint8_t* at = position + from;
    for (int p = 0; p < pixels; ++p) counts[p] = 0;                       // some are in no window
    Place* end[256];                                                      // of the lists of a window's pixels
    end[no_position] = lists + static_cast<int64_t>(pixels) * s.outputs;  // to be overwritten: by the next image, or the one to waste
    for (int p = 0; p < pooled; ++p, grad += s.outputs, at += s.outputs) {
      const int corner = p / op.pooled_width * window * s.out_width + p % op.pooled_width * window;
      for (int w = 0; w < window * window; ++w) end[w] = lists + static_cast<int64_t>(corner + pixel_inside[w]) * s.outputs;
      for (int o = 0; o < s.outputs; ++o) {
        Place* const to = end[at[o]];
        *to = {grad[o], static_cast<int32_t>(o * v.filter)};
        end[at[o]] = to + ((at[o] != no_position) & !is_zero(grad[o]));
      }
      for (int w = 0; w < window * window; ++w)
        counts[corner + pixel_inside[w]] =
            static_cast<int32_t>(end[w] - (lists + static_cast<int64_t>(corner + pixel_inside[w]) * s.outputs));
    }
  };
  conv_backward_from_lists(s, gradients, play.batch.count, op.pooled_height, op.pooled_width, window, list_filter, list_pixels);
}
