#pragma once
#include <functional>

namespace klopf {

// Threads of the CPU executor. The default is KLOPF_NUM_THREADS or the processors this process may use.
void set_threads(int count);
int get_threads();

// Calls work(index, thread) for every index in [0, count), on as many threads as are set; thread < min(count, get_threads()). The order is
// free, so work must depend on the index alone. Exceptions reach the caller.
void parallel_for(int count, const std::function<void(int index, int thread)>& work);

}  // namespace klopf
