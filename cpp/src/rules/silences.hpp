#pragma once
#include <stdint.h>

#include "klopf/portable.hpp"

// SNR (Farias and Jozefiak 2024): a unit is replaced when it is silent for longer than most of its own silences were.
namespace klopf {

// Silences are counted in bins: below 16 samples each for itself, then eight bins to each doubling.
constexpr int32_t silence_bins = 8 * 29;
KLOPF_FN int32_t silence_bin(int32_t samples) {
  int32_t octave = 0;
  for (; samples >= 16; samples /= 2) ++octave;
  return 8 * octave + samples;
}
// The longest silence of a bin.
KLOPF_FN int32_t silence_of_bin(int32_t bin) {
  if (bin < 16) return bin;
  const int32_t octave = bin / 8 - 1, first = bin - 8 * octave;
  return static_cast<int32_t>((static_cast<int64_t>(first + 1) << octave) - 1);
}

struct SilenceRates {
  double percentile, threshold, longest;
};

// A batch of so many samples; whether the unit goes.
KLOPF_FN bool silence_step(bool fired, int32_t samples, int32_t& silence, int32_t& limit, int32_t* gaps, SilenceRates rates) {
  if (limit == 0) limit = static_cast<int32_t>(rates.threshold);
  if (fired && silence > 0) ++gaps[silence_bin(silence)];
  silence = fired ? 0 : silence + samples;
  if (silence < limit) return false;
  ++gaps[silence_bin(silence)];
  silence = 0;
  return true;
}

// The percentile of the silences counted, or where it is not below the limit that cut them short, twice the limit; at least a batch.
KLOPF_FN void silence_limit(int32_t samples, int32_t& limit, int32_t* gaps, SilenceRates rates) {
  int64_t all = 0, passed = 0;
  for (int32_t bin = 0; bin < silence_bins; ++bin) all += gaps[bin];
  int32_t found = 0;
  for (int32_t bin = 0; bin < silence_bins; ++bin) {
    passed += gaps[bin];
    if (all > 0 && static_cast<double>(passed) >= rates.percentile * static_cast<double>(all)) {
      found = silence_of_bin(bin);
      break;
    }
  }
  for (int32_t bin = 0; bin < silence_bins; ++bin) gaps[bin] = 0;
  double next = found < limit ? found : 2.0 * limit;
  if (next > rates.longest) next = rates.longest;
  if (next < samples) next = samples;
  limit = static_cast<int32_t>(next);
}

}  // namespace klopf
