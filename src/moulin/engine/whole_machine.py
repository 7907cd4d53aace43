"""Whether a lone call of an encoder gains by all threads, measured when the model is loaded.

Two CPUs of a virtual machine may be one core, whose threads slow each other down, and the threads of a call wait for
each other by spinning. Where all of them give the latency of one, one leaves the others to the features, the search and
further requests.
"""

from __future__ import annotations

import time
from collections.abc import Callable

WORTH = 1.25
"""How much faster all threads must be."""

_ROUNDS = 3


def all_threads_help(
    one: Callable[[], object], all_threads: Callable[[], object], clock: Callable[[], float] = time.perf_counter
) -> bool:
    """Whether the call `all_threads` takes clearly less time than the same by `one` thread; each is called four
    times."""
    calls = one, all_threads
    for call in calls:  # the first calls allocate memory
        call()
    best = [float("inf"), float("inf")]
    for _ in range(_ROUNDS):
        for index, call in enumerate(calls):
            started = clock()
            call()
            best[index] = min(best[index], clock() - started)
    return best[0] >= WORTH * best[1]
