"""What `rexis agent run` shows: what happens, line by line, and bars for what takes long; under `--json` one object a line for both."""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from rexis.agent.duty import Event
from rexis.cli.output import console, print_json

if TYPE_CHECKING:
    from rich.progress import TaskID

# A log has no use for more; the last step is always in it.
LOG_EVERY_S = 5.0
AT_WORK = "at work; Ctrl-C ends it, and `rexis agent run` goes on where it stopped"


class AgentScreen(Protocol):
    """Where an agent's events and steps go."""

    def report(self, event: Event) -> None:
        """Something happened."""
        ...

    def on_step(self, name: str, done: int, total: int) -> None:
        """Something that takes long has come this far."""
        ...

    def at_work(self) -> AbstractContextManager[object]:
        """While the agent's loop runs."""
        ...


class JsonLog:
    """One object a line on standard output; steps at most every few seconds.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, *, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._name, self._said_at = "", float("-inf")

    def report(self, event: Event) -> None:
        """Write an event."""
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        print_json({"at": at, "what": event.what, "subject": event.subject, "detail": dict(event.detail)})
        # A program reads along.
        sys.stdout.flush()

    def on_step(self, name: str, done: int, total: int) -> None:
        """Write how far something is, if it was not said a moment ago."""
        now = self._clock()
        if name != self._name:
            self._name, self._said_at = name, now
        if done < total and now - self._said_at < LOG_EVERY_S:
            return
        self._said_at = now
        self.report(Event("progress", name, {"done": done, "total": total}))

    def at_work(self) -> AbstractContextManager[object]:
        """Nothing but lines."""
        return nullcontext()


class Terminal:
    """Lines on standard error, and below them, on a terminal, a bar for what is being done now."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._console = console(stderr=True)
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn())
        self._bars = Progress(*columns, console=self._console, transient=True)
        self._bar: TaskID | None = None
        self._name = ""

    def report(self, event: Event) -> None:
        """Write an event above the bar."""
        from rich.text import Text

        detail = " · ".join(f"{name} {value}" for name, value in event.detail.items())
        line = Text.assemble((f"{datetime.now(UTC):%H:%M:%S}  ", "dim"), (f"{event.what}  ", "bold"), f"{event.subject}  {detail}")
        self._console.print(line, soft_wrap=True)

    def on_step(self, name: str, done: int, total: int) -> None:
        """Move the bar; it goes when all is done."""
        if self._bar is None or name != self._name:
            self._end_bar()
            self._bar, self._name = self._bars.add_task(name, total=total), name
        self._bars.update(self._bar, completed=done, total=total)
        if done >= total:
            self._end_bar()

    def at_work(self) -> AbstractContextManager[object]:
        """Keep the bars on the screen."""
        self._console.print(AT_WORK, style="dim")
        return self._bars

    def _end_bar(self) -> None:
        if self._bar is not None:
            self._bars.remove_task(self._bar)
        self._bar = None
