#include <cstdlib>
#include <string>

#include "cpu/kernels.hpp"
#include "klopf/error.hpp"

namespace klopf::cpu {

int usable_levels(Level out[4]) {
  int count = 0;
  out[count++] = {"baseline", &baseline};
#if defined(KLOPF_AVX2)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) out[count++] = {"avx2", &avx2};
#endif
#if defined(KLOPF_AVX512)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    out[count++] = {"avx512", &avx512};
#endif
  return count;
}

const Level& level() {
  static const Level chosen = [] {
    Level levels[4];
    const int count = usable_levels(levels);
    const char* wanted = std::getenv("KLOPF_ISA");
    if (wanted == nullptr || *wanted == '\0') return levels[count - 1];
    std::string names;
    for (int i = 0; i < count; ++i) {
      if (std::string(wanted) == levels[i].name) return levels[i];
      names += (i ? ", " : "") + std::string(levels[i].name);
    }
    throw Error("[isa] KLOPF_ISA must be one of " + names + " on this machine, got \"" + wanted + "\"");
  }();
  return chosen;
}

}  // namespace klopf::cpu
