"""Starts children in the order of what they need, restarts those that end, and stops them all.

One thread per child blocks on its end; all shared state changes under one condition.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rexis.errors import ConfigurationError, RexisError, UnavailableError
from services.local.process import Child, ProcessSpec, State, describe_exit

MAX_CRASHES = 5
CRASH_WINDOW_S = 60.0
FIRST_BACKOFF_S, LAST_BACKOFF_S = 0.5, 10.0
PROBE_INTERVAL_S = 0.1


@dataclass
class Status:
    """What is known of one child. `runs` counts how often it became ready or done; `restarts`, how often it ended unasked."""

    state: State = State.WAITING
    pid: int | None = None
    runs: int = 0
    restarts: int = 0
    ready_after_s: float | None = None
    log: str = ""


class Supervisor:
    """Runs `specs` until `stop`, or until one of them can not be kept running.

    Args:
        specs: in the order in which they are shown; each needs only names of this sequence.
        logs: folder of the log files.
        cwd: working directory of the children.
        start_timeout_s: longest time from a child's start to its readiness.
        stop_timeout_s: longest time from asking a child to end to killing it.
        on_change: called with a child's name and status after each change, never twice at once.
    """

    def __init__(
        self,
        specs: Sequence[ProcessSpec],
        *,
        logs: Path,
        cwd: Path,
        start_timeout_s: float,
        stop_timeout_s: float,
        on_change: Callable[[str, Status], None] = lambda _name, _status: None,
    ) -> None:
        self.specs = {spec.name: spec for spec in specs}
        unknown = sorted({need for spec in specs for need in spec.needs} - self.specs.keys())
        if unknown or len(self.specs) < len(specs):
            raise ValueError(f"process names must be unique and needs known; unknown: {unknown}")
        self.status = {name: Status() for name in self.specs}
        self.failure: RexisError | None = None
        self._logs, self._cwd = logs, cwd
        self._start_timeout_s, self._stop_timeout_s = start_timeout_s, stop_timeout_s
        self._on_change = on_change
        self._changed = threading.Condition(threading.RLock())
        self._stopping: set[str] = set()
        self._children: dict[str, Child] = {}
        self._threads = {name: threading.Thread(target=self._keep, args=(name,), name=name, daemon=True) for name in self.specs}

    def start(self) -> None:
        """Begin; returns at once."""
        self._logs.mkdir(parents=True, exist_ok=True)
        for thread in self._threads.values():
            thread.start()

    def wait_ready(self, interrupted: Callable[[], bool] = lambda: False) -> bool:
        """Block until all children are ready (True) or `interrupted()` holds (False).

        Raises:
            RexisError: a child can not be kept running; the message ends with its last log lines.
        """
        with self._changed:
            while self.failure is None and not interrupted():
                if all(status.state in (State.READY, State.DONE) for status in self.status.values()):
                    return True
                self._changed.wait(0.2)
            if self.failure is not None:
                raise self.failure
            return False

    def wait_failure(self, interrupted: Callable[[], bool]) -> None:
        """Block until `interrupted()` holds.

        Raises:
            RexisError: as `wait_ready`.
        """
        with self._changed:
            while self.failure is None and not interrupted():
                self._changed.wait(0.2)
            if self.failure is not None:
                raise self.failure

    def stop(self, hurry: Callable[[], bool] = lambda: False) -> None:
        """End all children, each after those that need it; those that do not end in time, or all when `hurry()` holds, are killed."""
        left = dict(self.specs)
        while left:
            wave = [name for name in left if not any(name in spec.needs for spec in left.values())]
            with self._changed:
                self._stopping.update(wave)
                for name in wave:
                    if child := self._children.get(name):
                        child.terminate()
                self._changed.notify_all()
            deadline = time.monotonic() + self._stop_timeout_s
            for name in wave:
                while self._threads[name].is_alive() and time.monotonic() < deadline and not hurry():
                    self._threads[name].join(0.1)
                if self._threads[name].is_alive():
                    with self._changed:
                        if child := self._children.get(name):
                            child.kill()
                    self._threads[name].join(self._stop_timeout_s)
                del left[name]

    # One child's thread.

    def _keep(self, name: str) -> None:
        try:
            self._live(name)
        except RexisError as error:
            self._fail(name, error)
        finally:
            if self.status[name].state not in (State.STOPPED, State.FAILED):
                self._fail(name, UnavailableError(f"the supervision of {name} broke: a defect, see the traceback above"))

    def _live(self, name: str) -> None:
        crashes: deque[float] = deque(maxlen=MAX_CRASHES)
        while self._wait_for_needs(name):
            ended = self._run(name)
            if ended is None:
                continue
            crashes.append(time.monotonic())
            recent = sum(crashes[-1] - at <= CRASH_WINDOW_S for at in crashes)
            if recent == MAX_CRASHES:
                raise UnavailableError(f"{name} was started {recent} times within a minute and is given up: it {ended}")
            self._set(name, state=State.RESTARTING, pid=None, restarts=self.status[name].restarts + 1)
            with self._changed:
                self._changed.wait_for(lambda: name in self._stopping, min(FIRST_BACKOFF_S * 2 ** (recent - 1), LAST_BACKOFF_S))
        self._set(name, state=State.STOPPED, pid=None)

    def _wait_for_needs(self, name: str) -> bool:
        """Block until the process may start; False if it is to stop."""
        needs = self.specs[name].needs
        with self._changed:
            self._changed.wait_for(
                lambda: name in self._stopping or all(self.status[need].state in (State.READY, State.DONE) for need in needs)
            )
            return name not in self._stopping

    def _run(self, name: str) -> str | None:
        """One life of the process: None if it ended as it should, else how it ended with its last lines."""
        spec = self.specs[name]
        if spec.before is not None:
            spec.before()
        started = time.monotonic()
        with self._changed:
            if name in self._stopping:
                return None
            try:
                child = self._children[name] = Child(spec, self._logs, self._cwd)
            except OSError as error:
                raise ConfigurationError(f"{name} can not be started: {spec.command[0]}: {error.strerror}") from error
            generation = {need: self.status[need].runs for need in spec.needs}
            self._set(name, state=State.STARTING, pid=child.pid, log=str(child.log))
        trouble = None
        if not spec.once:
            try:
                if self._becomes_ready(spec, child):
                    self._succeeded(name, State.READY, started)
            except UnavailableError as error:
                trouble = str(error)
                child.kill()
        code = child.wait()
        with self._changed:
            del self._children[name]
            if name in self._stopping:
                return None
        if spec.once and code == 0:
            self._succeeded(name, State.DONE, started)
            with self._changed:
                self._changed.wait_for(
                    lambda: name in self._stopping or any(self.status[need].runs > generation[need] for need in generation)
                )
            return None
        return f"{trouble or describe_exit(code)}\nlast lines of {child.log}:\n{child.last_lines()}"

    def _becomes_ready(self, spec: ProcessSpec, child: Child) -> bool:
        """Block until the probe succeeds (True), or the child has ended or is to stop (False); UnavailableError if that takes too long."""
        deadline = time.monotonic() + self._start_timeout_s
        while child.popen.poll() is None:
            try:
                if spec.probe is not None:
                    spec.probe()
                if spec.port is not None:
                    child.require_listening(spec.port)
            except (OSError, UnavailableError) as error:
                if time.monotonic() > deadline:
                    raise UnavailableError(f"was not ready within {self._start_timeout_s:.0f} s: {error}") from error
                with self._changed:
                    if self._changed.wait_for(lambda: spec.name in self._stopping, PROBE_INTERVAL_S):
                        return False
            else:
                return True
        return False

    def _succeeded(self, name: str, state: State, started: float) -> None:
        self._set(name, state=state, runs=self.status[name].runs + 1, ready_after_s=round(time.monotonic() - started, 2))

    def _fail(self, name: str, error: RexisError) -> None:
        with self._changed:
            self.failure = self.failure or error
            self._set(name, state=State.FAILED, pid=None)

    def _set(self, name: str, **values: object) -> None:
        with self._changed:
            for attribute, value in values.items():
                setattr(self.status[name], attribute, value)
            self._on_change(name, self.status[name])
            self._changed.notify_all()

    def pids(self) -> Mapping[str, int]:
        """The children that run now."""
        with self._changed:
            return {name: child.pid for name, child in self._children.items()}
