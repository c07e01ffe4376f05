"""One child process: what to run, when it counts as ready, and its last words."""

import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import psutil

from rexis.errors import UnavailableError

LARGEST_LOG = 10 << 20
LAST_LINES = 15


@dataclass(frozen=True)
class ProcessSpec:
    """How to run one child.

    Attributes:
        name: unique in the platform; also the name of its log file.
        command: argument list; no shell.
        environment: complete; nothing else is inherited.
        needs: names of processes that must be ready before this one is started.
        probe: raises `OSError` or `UnavailableError` while the process is not ready; None: ready as soon as it runs.
        port: TCP port on which this very process must listen to count as ready.
        before: run before every start; an exception ends the platform.
        once: runs to its end instead of staying; exit code 0 is success. Runs again when something it needs was started again.
        hold_input: standard input is a pipe that only this process's end closes.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    needs: tuple[str, ...] = ()
    probe: Callable[[], None] | None = None
    port: int | None = None
    before: Callable[[], None] | None = None
    once: bool = False
    hold_input: bool = False


class State(StrEnum):
    """Where a child stands."""

    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    DONE = "done"
    RESTARTING = "restarting"
    FAILED = "failed"
    STOPPED = "stopped"


class Child:
    """A running child in a session of its own: a terminal's Ctrl-C reaches the supervisor only."""

    def __init__(self, spec: ProcessSpec, logs: Path, cwd: Path) -> None:
        self.log = logs / f"{spec.name}.log"
        if self.log.exists() and self.log.stat().st_size > LARGEST_LOG:
            self.log.replace(self.log.with_suffix(".log.1"))
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self.popen = subprocess.Popen(
                spec.command,
                cwd=cwd,
                env=dict(spec.environment),
                stdin=subprocess.PIPE if spec.hold_input else subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.popen.pid

    def wait(self) -> int:
        """Block until the child has ended and end what it left behind; returns its exit code, -n after signal n."""
        code = self.popen.wait()
        self._signal_group(signal.SIGKILL)
        return code

    def require_listening(self, port: int) -> None:
        """
        Raises:
            UnavailableError: what answers on the port is not this child.
        """
        try:
            connections = psutil.Process(self.pid).net_connections("tcp")
        except psutil.NoSuchProcess as error:
            raise UnavailableError("it has ended") from error
        if not any(found.status == psutil.CONN_LISTEN and found.laddr.port == port for found in connections):
            raise UnavailableError(f"another program listens on port {port}")

    def terminate(self) -> None:
        """Ask the child to end (SIGTERM, or the end of its input); what it started is its own affair until it has ended."""
        if self.popen.stdin is not None:
            self.popen.stdin.close()
        else:
            self.popen.terminate()

    def kill(self) -> None:
        """End the child and everything it started."""
        self._signal_group(signal.SIGKILL)

    def _signal_group(self, number: int) -> None:
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            return
        except PermissionError:
            # macOS answers so for a group of which only zombies are left.
            return

    def last_lines(self) -> str:
        """The end of what this run has written."""
        with self.log.open("rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(self._log_start, log.tell() - 8192))
            lines = log.read().decode(errors="replace").splitlines()
        return "\n".join(lines[-LAST_LINES:]) or "(it wrote nothing)"


def describe_exit(code: int) -> str:
    """An exit code in words."""
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
