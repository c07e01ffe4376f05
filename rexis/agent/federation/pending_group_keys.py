"""Federations that were joined and have no group key here yet: the agent takes a step in each, again and again, until they have."""

from collections.abc import Callable
from time import monotonic

from rexis.agent.duty import Event, Report
from rexis.agent.federation.group_keys import GroupKeys, group_key
from rexis.agent.federation.records import FederationRecords, subject_of
from rexis.errors import RexisError, UnavailableError

# How often; those before in the roster go first, see `group_keys.PATIENCE_S`.
LOOK_S = 0.5
LONGEST_PAUSE_S = 60.0
LONGEST_WAIT_S = 4.0
UNAGREED = """
SELECT id FROM federation WHERE id NOT IN (SELECT federation FROM group_key WHERE sealed_key IS NOT NULL)
AND id NOT IN (SELECT federation FROM given_up_federation)
"""


class PendingGroupKeys:
    """The part of an agent's work that comes before the first round.

    Args:
        keys: of the institution.
        records: which federations it joined.
        report: told what happens.
    """

    def __init__(self, keys: GroupKeys, records: FederationRecords, report: Report, *, clock: Callable[[], float] = monotonic) -> None:
        self._keys, self._records, self._report, self._clock = keys, records, report, clock
        self._rests: dict[bytes, tuple[float, float]] = {}
        self._told: dict[bytes, str] = {}
        # Federations that need no key.
        self._without: set[bytes] = set()

    def is_agreed(self, federation: bytes) -> bool:
        """Whether the key of a federation whose round runs is here; if it is not, it is looked for at once.

        Raises:
            UnavailableError: the aggregator or the node does not answer.
        """
        if group_key(self._records.journal, federation) is None:
            self._rests.pop(federation, None)
            self.agree()
        return group_key(self._records.journal, federation) is not None

    def agree(self) -> None:
        """One step in each federation; one whose documents can not be right rests, ever longer, and is told of once.

        Raises:
            UnavailableError: the aggregator or the node does not answer.
        """
        for row in self._records.journal.rows(UNAGREED):
            federation = row["id"]
            due, pause = self._rests.get(federation, (float("-inf"), LOOK_S))
            if federation in self._without or self._clock() < due:
                continue
            member = self._records.membership(federation)
            if member is None or not member.config.has_group_key:
                self._without.add(federation)
                continue
            try:
                key = self._keys.agree(federation, member.config)
            except UnavailableError:
                raise
            except RexisError as error:
                reason = str(error)
                if self._told.setdefault(federation, "") != reason:
                    self._told[federation] = reason
                    self._report(Event("no group key", subject_of(federation), {"reason": reason}))
                self._rests[federation] = self._clock() + pause, min(2 * pause, LONGEST_PAUSE_S)
                continue
            self._rests[federation] = self._clock() + pause, min(1.25 * pause, LONGEST_WAIT_S)
            if key is not None:
                self._report(Event("agreed on the group key", subject_of(federation)))
