#pragma once
#include "klopf/portable.hpp"

// Utility measures of a unit (Dohare et al. 2024 and its code; algorithms of selective reinitialisation). To add one: a structure
// with a name, what it needs, and its value; and its place in the list at the end.
namespace klopf {

// What is known of a unit at a step. f is its bias-corrected running mean activity, including this step.
struct UnitSignals {
  float outgoing;              // sum of |outgoing weights| (mean over positions where each has weights of its own)
  float incoming;              // mean |incoming weights|
  float contribution;          // mean |y| times outgoing, position by position
  float centred_contribution;  // mean |y - f| times outgoing, position by position
  float centred_activity;      // mean |y - f|
  float uniform;               // a random number in (0, 1)
  float variance;              // running, of y
  float outgoing_squares;      // sum of squared outgoing weights, to successors that count
};
// Those that take more than what is known anyway, and are computed only for measures that say so.
struct Needs {
  bool centred = false, incoming = false, uniform = false, variance = false;
};

// A unit that hears nothing is of no use.
KLOPF_FN float over_incoming(float value, const UnitSignals& s) { return s.incoming > 0 ? value / s.incoming : 0.0f; }

struct Measure {
  static constexpr Needs needs{};
  static constexpr bool averaged = true;  // over time; else the value is the utility
};
struct Contribution : Measure {
  static constexpr const char* name = "contribution";
  KLOPF_FN float value(const UnitSignals& s) { return s.contribution; }
};
struct ZeroContribution : Measure {
  static constexpr const char* name = "zero_contribution";
  static constexpr Needs needs{.centred = true};
  KLOPF_FN float value(const UnitSignals& s) { return s.centred_contribution; }
};
struct AdaptableContribution : Measure {
  static constexpr const char* name = "adaptable_contribution";
  static constexpr Needs needs{.centred = true, .incoming = true};
  KLOPF_FN float value(const UnitSignals& s) { return over_incoming(s.centred_contribution, s); }
};
struct Weight : Measure {
  static constexpr const char* name = "weight";
  KLOPF_FN float value(const UnitSignals& s) { return s.outgoing; }
};
struct Adaptation : Measure {
  static constexpr const char* name = "adaptation";
  static constexpr Needs needs{.incoming = true};
  KLOPF_FN float value(const UnitSignals& s) { return over_incoming(1, s); }
};
struct FeatureByInput : Measure {
  static constexpr const char* name = "feature_by_input";
  static constexpr Needs needs{.centred = true, .incoming = true};
  KLOPF_FN float value(const UnitSignals& s) { return over_incoming(s.centred_activity, s); }
};
struct VarianceContribution : Measure {  // what the next layer's inputs vary by, were activities independent
  static constexpr const char* name = "variance_contribution";
  static constexpr Needs needs{.variance = true};
  static constexpr bool averaged = false;  // the variance is a running one
  KLOPF_FN float value(const UnitSignals& s) { return s.variance * s.outgoing_squares; }
};
struct RandomUtility : Measure {  // drawn anew every step
  static constexpr const char* name = "random";
  static constexpr Needs needs{.uniform = true};
  static constexpr bool averaged = false;
  KLOPF_FN float value(const UnitSignals& s) { return s.uniform; }
};

template <class... Measures>
struct MeasureList {
  static constexpr int size = sizeof...(Measures);
  static constexpr const char* names[size] = {Measures::name...};
  static constexpr Needs needs[size] = {Measures::needs...};
  // Calls visit(measure) for the index-th.
  template <class Visit>
  KLOPF_FN void with(int index, Visit visit) {
    int i = 0;
    static_cast<void>(((i++ == index ? (visit(Measures{}), true) : false) || ...));
  }
};

using UtilityMeasures = MeasureList<Contribution, ZeroContribution, AdaptableContribution, Weight, Adaptation, FeatureByInput,
                                    VarianceContribution, RandomUtility>;

}  // namespace klopf
