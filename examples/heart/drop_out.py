"""A hospital that drops out of a round: its agent gets SIGKILL after it announced its keys and before it sends its update.

The hospital's own journal tells when. A process that is killed while the machine is busy may have sent its update by then; so the journal
is read again afterwards, and the next round is tried if it had.
"""

import threading

from examples.heart.parties import Hospital
from rexis.agent.journal import Entry, Journal

POLL_S = 0.03
LATEST_ENTRIES = 40
KEYS, MASKED = "keys", "announced"


class DropOut:
    """Watches a hospital's journal in a thread of its own; use as context.

    Args:
        hospital: whose agent is killed.
        federation: id of the federation whose round it is to miss.
        first_round: of the rounds that may be chosen.

    Attributes:
        round: that the hospital dropped out of; None until it has.
    """

    def __init__(self, hospital: Hospital, federation: str, first_round: int) -> None:
        self.hospital, self.federation = hospital, federation
        self.round: int | None = None
        self._next_round = first_round
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="drop-out", daemon=True)

    def __enter__(self) -> "DropOut":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        with Journal.open(self.hospital.journal, None) as journal:
            while not self._stop.wait(POLL_S):
                reached = [number for number in self._rounds(journal, KEYS) if number >= self._next_round]
                if not reached:
                    continue
                self.hospital.kill_agent()
                number = max(reached)
                if number not in self._rounds(journal, MASKED):
                    self.round = number
                    return
                self.hospital.start_agent()
                self._next_round = number + 1

    def _rounds(self, journal: Journal, stage: str) -> set[int]:
        entries: list[Entry] = journal.entries(subject=f"federation {self.federation}", limit=LATEST_ENTRIES)
        return {entry.detail["round"] for entry in entries if entry.stage == stage}
