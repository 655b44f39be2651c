#include "klopf/synthetic.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "klopf/error.hpp"
#include "klopf/philox.hpp"
#include "klopf/threads.hpp"

// A class is a few parts in a loose arrangement: each a patch of grating with its own orientation, frequency, colour and place. An
// image moves, turns, scales and dims the whole, gives each grating a phase of its own (so that no single pixel tells the
// class), and lays it over a background of soft colour clouds, uneven light and grain. Lengths are in image widths.
namespace klopf {
namespace {

constexpr int parts = 3, clouds = 3;
constexpr float pi = 3.14159265f;

// Numbers of one class or one image, in order.
class Numbers {
 public:
  Numbers(uint64_t seed, uint32_t place, uint64_t step) : seed_(seed), place_(place), step_(step) {}
  float uniform(float low, float high) { return low + (high - low) * uniform_at(seed_, Stream::images, place_, step_, next_++); }

 private:
  uint64_t seed_;
  uint32_t place_;
  uint64_t step_;
  uint32_t next_ = 0;
};

struct Colour {
  float c[3];
};
// Mostly light and dark, with a tint.
Colour colour(Numbers& n, float light, float tint) {
  Colour out{};
  const float level = n.uniform(-light, light);
  for (float& c : out.c) c = level + n.uniform(-tint, tint);
  return out;
}

struct Part {
  float x, y, angle, frequency, width, tint;
  Colour colour;
};

// out[i] = scale * cos(phase + i * advance), by turning a unit vector.
void cosines(float phase, float advance, float scale, int count, float* out) {
  const float c = std::cos(advance), s = std::sin(advance);
  float x = scale * std::cos(phase), y = scale * std::sin(phase);
  for (int i = 0; i < count; ++i) {
    out[i] = x;
    const float turned = x * c - y * s;
    y = x * s + y * c;
    x = turned;
  }
}

class Painter {
 public:
  explicit Painter(int size)
      : size_(size),
        pixels_(static_cast<std::size_t>(3 * size * size)),
        row_(static_cast<std::size_t>(size)),
        across_(row_.size()),
        down_(row_.size()) {}

  void clear(Numbers& n) {
    const Colour level = colour(n, 0.3f, 0.15f);
    for (int c = 0; c < 3; ++c) {
      std::fill_n(pixels_.begin() + c * size_ * size_, size_ * size_, level.c[c]);
    }
  }
  // Adds (wave + tint) * colour under a Gaussian of this width; an infinite width is none.
  void add(float x, float y, float angle, float frequency, float phase, float width, float tint, const Colour& colour) {
    const float pixel = 1.0f / static_cast<float>(size_), along = 2 * pi * frequency * std::cos(angle),
                up = 2 * pi * frequency * std::sin(angle);
    for (int i = 0; i < size_; ++i) {
      const float at = (static_cast<float>(i) + 0.5f) * pixel;
      across_[static_cast<std::size_t>(i)] = std::exp(-(at - x) * (at - x) / (2 * width * width));
      down_[static_cast<std::size_t>(i)] = std::exp(-(at - y) * (at - y) / (2 * width * width));
    }
    for (int i = 0; i < size_; ++i) {
      const float envelope = down_[static_cast<std::size_t>(i)];
      if (envelope < 1e-3f) continue;
      cosines(phase + up * static_cast<float>(i) * pixel, along * pixel, 1.0f, size_, row_.data());
      for (int k = 0; k < size_; ++k)
        row_[static_cast<std::size_t>(k)] = (row_[static_cast<std::size_t>(k)] + tint) * across_[static_cast<std::size_t>(k)] * envelope;
      for (int c = 0; c < 3; ++c) {
        float* to = pixels_.data() + (c * size_ + i) * size_;
        for (int k = 0; k < size_; ++k) to[k] += colour.c[c] * row_[static_cast<std::size_t>(k)];
      }
    }
  }
  void finish(uint64_t seed, uint32_t place, uint64_t step, float grain, uint8_t* out) const {
    for (std::size_t i = 0; i < pixels_.size(); i += 4) {
      const Random4 r = random4(seed, Stream::images, place | 0x800000u, step, static_cast<uint32_t>(i));
      for (std::size_t k = 0; k < 4 && i + k < pixels_.size(); ++k) {
        const float value = 127.5f + 100.0f * (pixels_[i + k] + grain * (2 * klopf::uniform(r.v[k]) - 1));
        out[i + k] = static_cast<uint8_t>(std::clamp(value, 0.0f, 255.0f));
      }
    }
  }

 private:
  int size_;
  std::vector<float> pixels_, row_, across_, down_;
};

}  // namespace

void synthetic_images(uint64_t seed, uint32_t class_index, int64_t first, int64_t count, int size, uint8_t* out) {
  if (size < 4 || size > 4096) throw Error("[synthetic_images] size must be from 4 to 4096, got " + std::to_string(size));
  if (first < 0 || count < 0) throw Error("[synthetic_images] first and count must not be negative");
  if (class_index >= 1u << 23) throw Error("[synthetic_images] class_index must be below 8388608, got " + std::to_string(class_index));
  if (out == nullptr && count > 0) throw Error("[synthetic_images] out must be given, got none");
  Numbers of_class(seed, class_index, 0);
  Part part[parts];
  for (Part& p : part) {
    p = {of_class.uniform(-0.22f, 0.22f),
         of_class.uniform(-0.22f, 0.22f),
         of_class.uniform(0, pi),
         of_class.uniform(1.5f, 5.5f),
         of_class.uniform(0.1f, 0.2f),
         of_class.uniform(-0.5f, 0.5f),
         {}};
    p.colour = colour(of_class, 0.8f, 0.6f);
  }
  const int64_t bytes = static_cast<int64_t>(3) * size * size;
  const int threads = get_threads();
  std::vector<Painter> painters(static_cast<std::size_t>(threads), Painter(size));
  parallel_for(count, threads, [&](int64_t i, int thread) {
    Painter& painter = painters[static_cast<std::size_t>(thread)];
    const uint64_t number = static_cast<uint64_t>(first + i) + 1;
    Numbers n(seed, class_index, number);
    painter.clear(n);
    for (int k = 0; k < clouds; ++k) {
      const float angle = n.uniform(0, pi), frequency = n.uniform(0.3f, 1.6f), phase = n.uniform(0, 2 * pi);
      painter.add(0.5f, 0.5f, angle, frequency, phase, 1e3f, 0, colour(n, 0.3f, 0.12f));
    }
    const float x = 0.5f + n.uniform(-0.16f, 0.16f), y = 0.5f + n.uniform(-0.16f, 0.16f), turn = n.uniform(-0.3f, 0.3f),
                scale = n.uniform(0.8f, 1.25f), contrast = n.uniform(0.5f, 1.1f);
    const float c = std::cos(turn) * scale, s = std::sin(turn) * scale;
    for (const Part& p : part) {
      Colour dimmed = p.colour;
      for (float& channel : dimmed.c) channel *= contrast;
      painter.add(x + c * p.x - s * p.y, y + s * p.x + c * p.y, p.angle + turn, p.frequency / scale, n.uniform(0, 2 * pi), p.width * scale,
                  p.tint, dimmed);
    }
    painter.finish(seed, class_index, number, 0.25f, out + i * bytes);
  });
}

}  // namespace klopf
