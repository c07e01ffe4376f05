"""The agent's loop: one process an institution, which asks and never listens, so that nothing reaches into the premises.

A duty whose service or chain is away waits longer each time, while the others go on; what was promised lies in the journal, so that the
process may be killed anywhere and started again.
"""

import fcntl
import os
import select
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import TypeVar

from rexis.agent.duty import Duty, Event, Report
from rexis.errors import ConfigurationError, KeyFileError, RexisError, UnavailableError, WrongChainError

# While something runs, other institutions wait for this one.
BUSY_PAUSE_S = 0.4
IDLE_GROWTH = 1.5
FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 1.0, 30.0
# No later try changes these.
FATAL = (ConfigurationError, KeyFileError, WrongChainError)

Opened = TypeVar("Opened")


class StopRequest:
    """Whether the process shall end; `ask` may be called inside a signal handler."""

    def __init__(self) -> None:
        # A pipe: a lock that the interrupted code holds would never be free again inside the handler.
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.asked = False

    def ask(self, *_: object) -> None:
        """Ask for the end."""
        self.asked = True
        with suppress(BlockingIOError):
            os.write(self._write, b"x")

    def wait(self, seconds: float) -> None:
        """Return after so many seconds, or at once when asked."""
        select.select([self._read], [], [], seconds)


class Agent:
    """Polls duties in turn, in this thread.

    Args:
        duties: what to do.
        poll_interval_s: longest pause between two looks.
        report: told when a duty begins to fail, when it works again, and what happened in between.
        clock: seconds, monotonic.
    """

    def __init__(self, duties: Sequence[Duty], *, poll_interval_s: float, report: Report, clock: Callable[[], float] = monotonic) -> None:
        self._lanes = [_Lane(duty) for duty in duties]
        self._longest_pause_s = poll_interval_s
        self._report, self._clock = report, clock
        self._pause_s = min(BUSY_PAUSE_S, poll_interval_s)

    def run(self, stop: StopRequest) -> None:
        """Work until asked to stop; a poll that has begun is finished.

        Raises:
            RexisError: one of `FATAL`.
        """
        while not stop.asked:
            stop.wait(self.turn())

    def turn(self) -> float:
        """Poll each duty that is due once; seconds to pause before the next turn."""
        busy = [self._poll(lane) for lane in self._lanes if lane.due_at <= self._clock()]
        shortest = min(BUSY_PAUSE_S, self._longest_pause_s)
        self._pause_s = shortest if any(busy) else min(self._pause_s * IDLE_GROWTH, self._longest_pause_s)
        return self._pause_s

    def _poll(self, lane: "_Lane") -> bool:
        try:
            busy = lane.duty.poll()
        except FATAL:
            raise
        except RexisError as error:
            lane.backoff_s = min(2 * lane.backoff_s, LONGEST_BACKOFF_S) if lane.failing else FIRST_BACKOFF_S
            lane.due_at = self._clock() + lane.backoff_s
            # One line for an outage, however long it is; another failure is another line.
            if lane.failing != (said := str(error)):
                lane.failing = said
                self._report(Event("waiting", lane.duty.name, {"why": said}))
            return False
        if lane.failing:
            lane.failing = ""
            self._report(Event("going on", lane.duty.name))
        return busy


class _Lane:
    def __init__(self, duty: Duty) -> None:
        self.duty = duty
        self.due_at = float("-inf")
        self.backoff_s = FIRST_BACKOFF_S
        self.failing = ""


def wait_until_opened(name: str, attempts: Sequence[Callable[[], Opened]], stop: StopRequest, report: Report) -> Opened | None:
    """What the first attempt that succeeds gives, tried in turn and then again; None if asked to stop before.

    Raises:
        RexisError: what an attempt raises, other than that something does not answer.
    """
    backoff_s, said = FIRST_BACKOFF_S, ""
    while not stop.asked:
        for attempt in attempts:
            try:
                return attempt()
            except UnavailableError as error:
                if said != str(error):
                    said = str(error)
                    report(Event("waiting", name, {"why": said}))
        stop.wait(backoff_s)
        backoff_s = min(2 * backoff_s, LONGEST_BACKOFF_S)
    return None


@contextmanager
def only_agent(journal: Path) -> Iterator[None]:
    """Be the only agent on a journal; the lock falls with the process, however it ends.

    Raises:
        ConfigurationError: another one runs.
    """
    path = journal.with_name(journal.name + ".agent")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            other = os.read(descriptor, 20).decode("ascii", "replace").strip()
            raise ConfigurationError(f"another agent (process {other}) works on {journal}; stop it first") from error
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        yield
    finally:
        os.close(descriptor)
