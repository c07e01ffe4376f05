"""What a person sees while the story is told: the step that runs with its bars, then one line for it, and how long it took."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text


class Step:
    """A running step: a line of its own, and a bar for each part that says how far it is."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bars: dict[str, TaskID] = {}

    def show(self, part: str, done: int, total: int) -> None:
        """Show how far a part is; the same part again moves its bar."""
        if part not in self._bars:
            self._bars[part] = self._progress.add_task(part, total=total)
        self._progress.update(self._bars[part], completed=done, total=total)


class Steps:
    """The steps of a story, in order.

    Attributes:
        seconds: by step, of those that are done.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Run one step: on a terminal with spinner and bars, elsewhere with its line at the end only."""
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=28), MofNCompleteColumn(), TimeElapsedColumn())
        began = time.monotonic()
        with Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as progress:
            progress.add_task(name, total=None)
            yield Step(progress)
        self.finish(name, time.monotonic() - began)

    def finish(self, name: str, seconds: float) -> None:
        """Note a step that was timed elsewhere, and print its line."""
        self.seconds[name] = seconds
        self.console.print(Text.assemble(("✓ ", "green"), name, (f"  {seconds:.1f} s", "dim")), soft_wrap=True)

    def note(self, text: str) -> None:
        """Print a finding of the step that ran last."""
        self.console.print(Text.assemble(("  ", ""), (text, "dim")), soft_wrap=True)

    def table(self, *headers: str) -> Table:
        """An empty table without lines, whose numbers a person can compare."""
        table = Table(box=None, header_style="bold", pad_edge=False)
        for header in headers:
            table.add_column(header, overflow="fold")
        return table
