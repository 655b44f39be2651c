"""How long one of many takes."""

from __future__ import annotations

import time
from collections.abc import Callable


def seconds_of_one(work: Callable[[int], None], seconds: float) -> float:
    """Of what `work(count)` does so many times: what a call costs once, such as copying data, cancels."""

    def clock(count: int) -> float:
        start = time.perf_counter()
        work(count)
        return time.perf_counter() - start

    work(2)
    count = max(1, int(seconds / 3 / max(clock(2) / 2, 1e-6)))
    once, thrice = clock(count), clock(3 * count)
    return (thrice - once) / (2 * count) if thrice > once else thrice / (3 * count)
