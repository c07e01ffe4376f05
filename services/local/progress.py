"""What a person sees while the platform starts: one line per process as it becomes ready, and what is awaited."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console

from services.local.process import State
from services.local.supervisor import Status


class StartProgress:
    """Use as context, and pass `on_change` to `Platform.start`.

    On a terminal the last line shows what is awaited; elsewhere only the finished lines appear.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._states: dict[str, State] = {}
        self._spinner = console.status("starting the platform")
        self._shown = False

    def on_change(self, name: str, status: Status) -> None:
        """Show one change."""
        before = self._states.get(name)
        self._states[name] = status.state
        if status.state in (State.READY, State.DONE) and before is State.STARTING:
            what = "ready" if status.state is State.READY else "done"
            self._console.print(f"[green]✓[/] {name:<24} {what} after {status.ready_after_s:.1f} s")
        elif status.state is State.RESTARTING:
            self._console.print(f"[yellow]![/] {name:<24} ended unexpectedly and is started again; see {status.log}", soft_wrap=True)
        elif status.state is State.FAILED:
            self._console.print(f"[red]✗[/] {name:<24} is given up")
        if self._shown:
            awaited = [other for other, state in self._states.items() if state is State.STARTING]
            self._spinner.update(f"waiting for {', '.join(awaited) or 'the next step'}")

    def __enter__(self) -> Self:
        self._shown = True
        self._spinner.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._shown = False
        self._spinner.stop()

    @property
    def seconds(self) -> float:
        """Time since the beginning."""
        return time.monotonic() - self._began
