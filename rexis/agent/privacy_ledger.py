"""What releases about each data set version have cost in differential privacy, of all federations and queries together.

A release is debited, durably, before its noise is drawn, under a name of its own: debiting it again after a crash costs nothing more.
The site's cap is measured over everything that stands here at the site's own δ, whatever δ the others agreed on.
"""

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from rexis.agent.federation.site_policy import PrivacyCap
from rexis.agent.journal import Journal
from rexis.dp.accountant import Event, GaussianEvent, LaplaceEvent, SkellamEvent, epsilon
from rexis.encoding import canonical_json
from rexis.errors import PrivacyBudgetExceededError, UnexpectedMessageError

_MECHANISMS: Mapping[str, Callable[..., Event]] = MappingProxyType(
    {"gaussian": GaussianEvent, "laplace": LaplaceEvent, "skellam": SkellamEvent}
)
_NAMES: Mapping[type, str] = MappingProxyType({GaussianEvent: "gaussian", LaplaceEvent: "laplace", SkellamEvent: "skellam"})
_EVENTS = "SELECT release, event FROM privacy_release WHERE content_root = ? ORDER BY rowid"
_REFUSAL = "rule of this site on privacy: its budget for this data set version does not cover this release, and nothing was drawn for it"


class PrivacyLedger:
    """The table `privacy_release` of an open journal: `rexis.dp.budget` for several processes that may die."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal

    def events(self, content_root: bytes) -> list[Event]:
        """Everything that was debited to a data set version, in order."""
        return [_event(row["event"]) for row in self.journal.rows(_EVENTS, content_root)]

    def spent(self, content_root: bytes, delta: float) -> float:
        """ε of everything that was debited to a data set version, at δ."""
        return epsilon(self.events(content_root), delta)

    def check(self, content_root: bytes, planned: Mapping[str, Event], cap: PrivacyCap) -> None:
        """Check that planned releases would stay within the cap, before anything is promised.

        Args:
            planned: by name; those that were debited already cost nothing more.

        Raises:
            PrivacyBudgetExceededError: they would not.
        """
        known = {row["release"] for row in self.journal.rows(_EVENTS, content_root)}
        events = [event for name, event in planned.items() if name not in known]
        if events and epsilon([*self.events(content_root), *events], cap.delta) > cap.epsilon:
            raise PrivacyBudgetExceededError(_REFUSAL)

    def debit(self, content_root: bytes, release: str, event: Event, cap: PrivacyCap | None) -> None:
        """Write a release down before its noise is drawn; the same release again changes nothing.

        Args:
            content_root: of the data set version, 32 bytes.
            release: names it among all of this data set version.
            cap: of this site; None records it without a limit.

        Raises:
            PrivacyBudgetExceededError: it would exceed the cap; nothing was debited. The message has no figure in it: it is logged, and
                what others have spent is theirs.
            UnexpectedMessageError: another event was debited under this name.
        """
        with self.journal.transaction() as connection:
            document = canonical_json(_document(event))
            known = connection.execute(
                "SELECT event FROM privacy_release WHERE content_root = ? AND release = ?", (content_root, release)
            ).fetchone()
            if known is not None:
                if known["event"] != document:
                    raise UnexpectedMessageError(f"{release} was debited for another mechanism: nothing may be released under its name")
                return
            # Inside the transaction, so that two processes can not spend the last of it both.
            stored = [_event(row["event"]) for row in connection.execute(_EVENTS, (content_root,))]
            if cap is not None and epsilon([*stored, event], cap.delta) > cap.epsilon:
                raise PrivacyBudgetExceededError(_REFUSAL)
            connection.execute("INSERT INTO privacy_release VALUES (?, ?, ?)", (content_root, release, document))


def _document(event: Event) -> dict[str, Any]:
    # The shortest text that reads as the same number.
    return {
        "mechanism": _NAMES[type(event)],
        **{field: value if type(value) is int else repr(value) for field, value in vars(event).items()},
    }


def _event(content: bytes) -> Event:
    fields = json.loads(content)
    make = _MECHANISMS[fields.pop("mechanism")]
    return make(**{field: float(value) if isinstance(value, str) else value for field, value in fields.items()})
