"""What an agent does over and over: a duty looks at its service once, does what is due, and says what happened."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Event:
    """Something that happened, for the operator's screen and log: no rows, counts of patients, keys or salts.

    Attributes:
        what: a few words, e.g. "query released".
        subject: what it is about, as the journal's entries call it, e.g. "query 3f…" or "federation 0x…".
        detail: public facts.
    """

    what: str
    subject: str
    detail: Mapping[str, Any] = field(default_factory=dict)


Report = Callable[[Event], None]
# What is being done, how much of it is, and of how much.
OnStep = Callable[[str, int, int], None]


class Duty(Protocol):
    """One kind of work. What it promised is in the journal before it is sent, so that it may be cut off anywhere."""

    @property
    def name(self) -> str:
        """What messages call it, e.g. "queries"."""
        ...

    def poll(self) -> bool:
        """Look once, and do what is due; whether something is under way, so that the next look should come soon.

        Raises:
            UnavailableError: a service or the chain does not answer; the next look comes later.
            RexisError: this look failed for another reason, which the operator should read.
        """
        ...
