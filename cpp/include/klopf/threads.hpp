#pragma once
#include <cstdint>
#include <type_traits>

namespace klopf {

// Threads of the CPU executor. The default is KLOPF_NUM_THREADS or the processors this process may use.
void set_threads(int count);
int get_threads();

using Work = void (*)(void* context, int64_t index, int thread);
void parallel_for(int64_t count, int most_threads, Work work, void* context);

// Calls work(index, thread) for every index in [0, count), on as many threads as are set, and no more than `most_threads`: thread <
// most_threads, so that callers can have a workspace for each. The order is free, so work must depend on the index alone. Exceptions
// reach the caller. Nothing is allocated.
template <class F>
void parallel_for(int64_t count, int most_threads, F&& work) {
  parallel_for(
      count, most_threads, [](void* f, int64_t index, int thread) { (*static_cast<std::remove_reference_t<F>*>(f))(index, thread); },
      &work);
}

}  // namespace klopf
