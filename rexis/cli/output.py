"""What a command prints: tables for people, one JSON value for programs, one clear message for a failure.

Results go to standard output, progress and failures to standard error. Exit codes: 0 done, 1 failed or refused, 2 wrong usage.
With `--json` a failure is JSON on standard output too, so that a program always finds one value there.
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

import typer

from rexis.errors import RexisError

if TYPE_CHECKING:
    from rich.console import Console

FAILED = 1


def console(*, stderr: bool = False) -> "Console":
    """A console for people; plain text when the stream is not a terminal."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False)


def print_json(value: Any) -> None:
    """The result of a command under `--json`: one line, keys in the order given."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")


@contextmanager
def failures(as_json: bool) -> Iterator[None]:
    """Turn what Rexis and the operating system refuse into one message and exit code 1."""
    try:
        yield
    except (RexisError, OSError) as error:
        _print_failure(type(error).__name__, _message(error), as_json)
        raise typer.Exit(FAILED) from error


def without_controls(text: str) -> str:
    """Text that may quote a hostile file, without the control characters by which it could rewrite a terminal."""
    return "".join(character if character.isprintable() or character == "\n" else "\ufffd" for character in text)


def report_defect(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """An exception hook: one line instead of a trace, which may hold data; `REXIS_DEBUG=1` shows it."""
    if os.environ.get("REXIS_DEBUG") == "1":
        sys.__excepthook__(kind, error, trace)
    else:
        sys.stderr.write(f"Error: a defect in rexis ({kind.__name__}). Run again with REXIS_DEBUG=1 and report what it shows.\n")


def _message(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename or 'the system'}: {error.strerror or error}"
    return str(error)


def _print_failure(kind: str, message: str, as_json: bool) -> None:
    if as_json:
        print_json({"error": {"kind": kind, "message": message}})
        return
    from rich.text import Text

    # Text, not markup: the message may quote what a service sent.
    console(stderr=True).print(Text.assemble(("Error: ", "bold red"), without_controls(message)), soft_wrap=True)
