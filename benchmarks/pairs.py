"""Runs compared in interleaved rounds, so that a busy machine slows each of them alike."""

import statistics
import time
from collections.abc import Callable, Sequence


def interleaved(runs: Sequence[Callable[[], object]], *, pairs: int) -> list[list[float]]:
    """Seconds of each run in each of `pairs` rounds; who goes first rotates."""
    for run_once in runs:
        seconds(run_once)
    # Rounds of about a millisecond: far above the clock's resolution, far below the scheduler's slice.
    calls = max(1, round(1e-3 / min(seconds(run_once) for run_once in runs)))
    times: list[list[float]] = [[] for _ in runs]
    for pair in range(pairs):
        for turn in range(len(runs)):
            which = (pair + turn) % len(runs)
            times[which].append(seconds(runs[which], calls))
    return times


def median_ratio(base: Sequence[float], other: Sequence[float]) -> float:
    """Median over the rounds of the second time over the first."""
    return statistics.median(b / a for a, b in zip(base, other, strict=True))


def seconds(run_once: Callable[[], object], calls: int = 1) -> float:
    """Wall time of a number of calls."""
    start = time.perf_counter()
    for _ in range(calls):
        run_once()
    return time.perf_counter() - start
