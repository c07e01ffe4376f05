"""The disclosure ledger: what was asked about each data set, what was decided, and what the marketplace has been told of it.

One transaction holds populations, answer and decision of a query, and ends before anything is sent. A query that was answered is
answered with the same result to everybody who asks it again, and a process that died in between sends what it had decided.
"""

import json
import sqlite3
from dataclasses import dataclass
from typing import Any

from rexis.agent.execution.tables import Answer
from rexis.agent.journal import Journal
from rexis.disclosure.populations import KnownPopulations
from rexis.encoding import canonical_json, to_hex
from rexis.errors import UnexpectedMessageError
from rexis.protocol.queries import TableQuery, TableResult

OVER = "over"
_OPEN_JOBS = "SELECT * FROM query_job WHERE told IS NOT 'over'"


@dataclass(frozen=True)
class Asked:
    """A query as the marketplace hands it over.

    Attributes:
        id: the marketplace's.
        dataset: token id.
        content_root: of the data set, 32 bytes.
        consumer: checksum address.
        purpose: number of the DUO permission.
        query: what is asked.
    """

    id: str
    dataset: int
    content_root: bytes
    consumer: str
    purpose: int
    query: TableQuery

    @property
    def subject(self) -> str:
        """What the journal's entries call it."""
        return f"query {self.id}"


@dataclass(frozen=True)
class Job:
    """A query that was decided.

    Attributes:
        asked: the query.
        state: released, held, refused, or failed.
        rule: why it is held, was refused or failed. Of what was held, for the owner only.
        reviewed: a person decided.
        told: the state that the marketplace knows; None before the first, `OVER` if it takes none any more.
    """

    asked: Asked
    state: str
    rule: str | None
    reviewed: bool
    told: str | None


class DisclosureLedger:
    """The tables `population`, `answered_query` and `query_job` of one open journal."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal

    def known_populations(self, content_root: bytes, subjects: int, minimum: int) -> KnownPopulations:
        """The populations of a data set that were answered about."""
        rows = self.journal.rows("SELECT ordinal, sealed FROM population WHERE content_root = ? ORDER BY ordinal", content_root)
        opened = (self.journal.sealer.open_field(row["sealed"], _population_place(content_root, row["ordinal"])) for row in rows)
        return KnownPopulations(subjects, minimum, opened)

    def answered(self, content_root: bytes, digest: bytes) -> Answer | None:
        """The answer to a query that was put before."""
        rows = self.journal.rows("SELECT * FROM answered_query WHERE content_root = ? AND digest = ?", content_root, digest)
        if not rows:
            return None
        content = self.journal.sealer.open_field(rows[0]["sealed_result"], _result_place(content_root, digest))
        return Answer(TableResult.parse(json.loads(content)), rows[0]["held"], 0)

    def spent(self, content_root: bytes) -> int:
        """Different queries about a data set that were answered or held."""
        count: int = self.journal.rows("SELECT count(*) AS n FROM answered_query WHERE content_root = ?", content_root)[0]["n"]
        return count

    def keep_answer(self, asked: Asked, answer: Answer, known: KnownPopulations) -> Job:
        """Write an answer with its populations and the decision that follows from it; an answer that is there stays."""
        root, state = asked.content_root, "released" if answer.held is None else "held"
        with self.journal.transaction() as connection:
            first = connection.execute("SELECT count(*) FROM population WHERE content_root = ?", (root,)).fetchone()[0]
            for ordinal, packed in enumerate(known.unsaved, start=first):
                sealed = self.journal.sealer.seal(packed, _population_place(root, ordinal))
                connection.execute("INSERT INTO population VALUES (?, ?, ?)", (root, ordinal, sealed))
            sealed = self.journal.sealer.seal(canonical_json(answer.result.document()), _result_place(root, asked.query.digest))
            connection.execute("INSERT OR IGNORE INTO answered_query VALUES (?, ?, ?, ?)", (root, asked.query.digest, answer.held, sealed))
            # Snapping shows here, in the owner's file, and nowhere else.
            detail = {"rule": answer.held} if answer.held is not None else {}
            self._insert(connection, asked, state, answer.held, snapped=answer.snapped, **detail)
        known.mark_saved()
        return self.job(asked.id)

    def keep_refusal(self, asked: Asked, state: str, rule: str) -> Job:
        """Write that a query is refused, or failed, by a rule that does not depend on what is in the table."""
        with self.journal.transaction() as connection:
            self._insert(connection, asked, state, rule, rule=rule)
        return self.job(asked.id)

    def find(self, query_id: str) -> Job | None:
        """A decided query, None if there is none."""
        rows = self.journal.rows("SELECT * FROM query_job WHERE id = ?", query_id)
        return _job(rows[0]) if rows else None

    def job(self, query_id: str) -> Job:
        """A decided query.

        Raises:
            UnexpectedMessageError: the journal has no such query.
        """
        job = self.find(query_id)
        if job is None:
            raise UnexpectedMessageError(f"the journal has no query {query_id}; `rexis agent held` lists those that wait")
        return job

    def untold(self) -> list[Job]:
        """Decided queries of which the marketplace does not know the latest."""
        return [_job(row) for row in self.journal.rows(f"{_OPEN_JOBS} AND told IS NOT state ORDER BY rowid")]

    def held(self) -> list[Job]:
        """Queries that wait for a person, oldest first."""
        return [_job(row) for row in self.journal.rows(f"{_OPEN_JOBS} AND state = 'held' ORDER BY rowid")]

    def result(self, job: Job) -> TableResult:
        """What was, or would be, released.

        Raises:
            UnexpectedMessageError: the query has no result.
        """
        answer = self.answered(job.asked.content_root, job.asked.query.digest)
        if answer is None or job.state not in ("released", "held"):
            raise UnexpectedMessageError(f"{job.asked.subject} has no result: it was {job.state}")
        return answer.result

    def decide(self, query_id: str, *, release: bool, by: str) -> Job:
        """Write a person's decision about a held query; the same decision again changes nothing.

        Raises:
            UnexpectedMessageError: it is not held, or its time is over.
        """
        state = "released" if release else "refused"
        with self.journal.transaction() as connection:
            job = self.job(query_id)
            if job.reviewed and job.state == state:
                return job
            if job.state != "held" or job.told == OVER:
                raise UnexpectedMessageError(
                    f"{job.asked.subject} does not wait for a person: it is {OVER if job.told == OVER else job.state}"
                )
            connection.execute("UPDATE query_job SET state = ?, reviewed = 1 WHERE id = ?", (state, query_id))
            self.journal.append(connection, job.asked.subject, state, by=by, reviewed=True)
        return self.job(query_id)

    def mark_told(self, job: Job, state: str, **detail: Any) -> None:
        """Write that the marketplace knows `state`, or with `OVER` that it takes none any more."""
        with self.journal.transaction() as connection:
            connection.execute("UPDATE query_job SET told = ? WHERE id = ?", (state, job.asked.id))
            self.journal.append(connection, job.asked.subject, f"told {state}" if state != OVER else OVER, **detail)

    def _insert(self, connection: sqlite3.Connection, asked: Asked, state: str, why: str | None, **detail: Any) -> None:
        connection.execute(
            "INSERT INTO query_job (id, dataset, content_root, consumer, purpose, query, state, rule) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(asked.id, asked.dataset, asked.content_root, asked.consumer, asked.purpose),
                *(canonical_json(asked.query.document()), state, why),
            ),
        )
        known = {"dataset": asked.dataset, "consumer": asked.consumer, "query": to_hex(asked.query.digest)}
        self.journal.append(connection, asked.subject, state, **known, **detail)


def _job(row: sqlite3.Row) -> Job:
    query = TableQuery.parse(json.loads(row["query"]))
    asked = Asked(row["id"], row["dataset"], row["content_root"], row["consumer"], row["purpose"], query)
    return Job(asked, row["state"], row["rule"], bool(row["reviewed"]), row["told"])


def _population_place(content_root: bytes, ordinal: int) -> str:
    return f"population.sealed:{to_hex(content_root)}:{ordinal}"


def _result_place(content_root: bytes, digest: bytes) -> str:
    return f"answered_query.sealed_result:{to_hex(content_root)}:{to_hex(digest)}"
