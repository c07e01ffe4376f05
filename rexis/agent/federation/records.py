"""What the journal keeps of federations: written before anything that it describes leaves, so that a crash sends the same bytes or none.

    open → answered      shares were given for the one set of survivors that stands on chain; without masks, the vector itself
    open → dropped       given up; nothing more is sent in this attempt
    refused              nothing was ever sent in it

Sealed are a participant's state (its secrets go when the attempt is over), its attempt record and commitment (a digest of a small table
of counts can be guessed) and the round's vector, which must be the same in each attempt at the round, until the round is over.
A row is changed only from what was read: of two agents on one journal the second is refused before it sends anything.
"""

import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rexis.agent.federation.asked_statistics import answer
from rexis.agent.journal import Journal
from rexis.client.relayed_calls import SignedCall
from rexis.encoding import canonical_json, from_hex, to_hex
from rexis.errors import PolicyError, UnexpectedMessageError
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.manifest import Manifest
from rexis.protocol.relayed_call import RelayedCall
from rexis.secagg.history import AttemptRecord, Outcome
from rexis.secagg.masks import RingVector, ring_dtype
from rexis.secagg.plain_participant import AnyParticipant
from rexis.secagg.statistics import Result, parse_statistic
from rexis.secagg.terms import RoundTerms


@dataclass(frozen=True)
class Membership:
    """A federation that this institution joined.

    Attributes:
        federation: id, 32 bytes.
        config: as its digest stands on chain.
        content_root: of the data set that it takes part with, 32 bytes.
        result: of a statistic, once it was checked against the chain.
    """

    federation: bytes
    config: FederationConfig
    content_root: bytes
    result: Result | None


@dataclass(frozen=True)
class StoredAttempt:
    """An attempt as the journal has it.

    Attributes:
        federation, round, attempt: which.
        ctx: 32 bytes.
        manifest: what was checked against the chain.
        stage: open, answered, dropped or refused.
        sealed_state: of the participant; None once it is over.
        since: number of the block that was the latest when it began.
        upload: id of the upload of the masked vector.
    """

    federation: bytes
    round: int
    attempt: int
    ctx: bytes
    manifest: Manifest
    stage: str
    sealed_state: bytes | None
    since: int
    upload: str | None

    @property
    def is_open(self) -> bool:
        """Whether anything may still be sent in it, if only again."""
        return self.sealed_state is not None

    @property
    def subject(self) -> str:
        """What the journal's entries call it."""
        return subject_of(self.federation)


@dataclass(frozen=True)
class Commitment:
    """What a vector was committed to with: `opening` is its tensor digest and the salt, `call` the signed call."""

    opening: bytes
    call: SignedCall


def subject_of(federation: bytes) -> str:
    """What the journal's entries call a federation."""
    return f"federation {to_hex(federation)}"


class FederationRecords:
    """The journal's tables of federations."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal

    def join(self, federation: bytes, config: FederationConfig, content_root: bytes) -> None:
        """Remember a federation that was checked; again, it changes nothing."""
        with self.journal.transaction() as connection:
            added = connection.execute(
                "INSERT OR IGNORE INTO federation (id, config, content_root) VALUES (?, ?, ?)",
                (federation, canonical_json(config.document()), content_root),
            )
            if added.rowcount:
                self.journal.append(connection, subject_of(federation), "joined", config=to_hex(config.digest))

    def membership(self, federation: bytes) -> Membership | None:
        """A federation that was joined, or None."""
        row = self._row("SELECT * FROM federation WHERE id = ?", federation)
        if row is None:
            return None
        config = FederationConfig.parse(json.loads(row["config"]))
        result = None if row["result"] is None else parse_statistic(config, json.loads(row["result"]))
        return Membership(row["id"], config, row["content_root"], result)

    def keep_result(self, federation: bytes, result: Result) -> None:
        """Remember a statistic's result that was checked."""
        with self.journal.transaction() as connection:
            connection.execute("UPDATE federation SET result = ? WHERE id = ?", (canonical_json(result.document()), federation))
            self.journal.append(connection, subject_of(federation), "result checked", digest=to_hex(result.digest))

    def attempt(self, federation: bytes, round_number: int, attempt: int) -> StoredAttempt | None:
        """One attempt, or None."""
        row = self._row("SELECT * FROM attempt WHERE federation = ? AND round = ? AND attempt = ?", federation, round_number, attempt)
        return None if row is None else _attempt(row)

    def unended(self) -> list[StoredAttempt]:
        """Attempts that hold something to be destroyed when they are over: state, or the round's vector."""
        rows = self.journal.rows("SELECT * FROM attempt WHERE ended = 0 ORDER BY federation, round, attempt")
        return [_attempt(row) for row in rows]

    def open_before(self, manifest: Manifest) -> list[StoredAttempt]:
        """Earlier attempts at the same round that were not given up."""
        rows = self.journal.rows(
            "SELECT * FROM attempt WHERE federation = ? AND round = ? AND attempt < ? AND stage = 'open'",
            *(manifest.federation, manifest.round, manifest.attempt),
        )
        return [_attempt(row) for row in rows]

    def earlier(self, terms: RoundTerms) -> list[AttemptRecord]:
        """Everything that may bind or forbid a new attempt: all of the same round, and all on the same base model."""
        rows = self.journal.rows(
            "SELECT * FROM attempt WHERE sealed_record IS NOT NULL AND ((federation = ? AND round = ?) OR base_model = ?)",
            *(terms.federation, terms.round, terms.base_model),
        )
        return [self._record(row["ctx"], row["sealed_record"]) for row in rows]

    def begin(self, participant: AnyParticipant, manifest: Manifest, since: int) -> StoredAttempt:
        """Remember a new attempt, with its first message if that is made already.

        Raises:
            PolicyError: an update of this base model is, or was, on its way into another federation's sum.
            UnexpectedMessageError: another process has begun it.
        """
        ctx, base_model = participant.terms.ctx, participant.terms.base_model
        self.check_base_model(base_model, manifest.federation)
        state, record = self._seal(participant)
        with self.journal.transaction() as connection:
            added = connection.execute(
                "INSERT OR IGNORE INTO attempt"
                " (federation, round, attempt, ctx, base_model, manifest, stage, sealed_record, sealed_state, since)"
                " VALUES (?, ?, ?, ?, ?, ?, 'open', ?, ?, ?)",
                (*_key(manifest), ctx, base_model, canonical_json(manifest.document()), record, state, since),
            )
            if not added.rowcount:
                raise UnexpectedMessageError("another agent has begun this attempt with this journal: run one agent for each journal")
            self._append(connection, manifest, "keys" if participant.terms.masked else "begun", ctx=to_hex(ctx))
        return StoredAttempt(*_key(manifest), ctx, manifest, "open", state, since, None)

    def refuse(self, manifest: Manifest, ctx: bytes, reason: str) -> None:
        """Remember that nothing is sent in an attempt, and why."""
        with self.journal.transaction() as connection:
            added = connection.execute(
                "INSERT OR IGNORE INTO attempt (federation, round, attempt, ctx, base_model, manifest, stage, since, ended)"
                " VALUES (?, ?, ?, ?, ?, ?, 'refused', 0, 1)",
                (*_key(manifest), ctx, manifest.base_model, canonical_json(manifest.document())),
            )
            if added.rowcount:
                self._append(connection, manifest, "refused", reason=reason)

    def keep(
        self, stored: StoredAttempt, participant: AnyParticipant, step: str, *, statistic: tuple[tuple[str, ...], bytes] | None = None
    ) -> StoredAttempt:
        """Store what a participant has become, before the message of this step leaves.

        Args:
            stored: the row as it was read.
            step: for the journal's entry.
            statistic: names (`asked_statistics.answered_once`) and content root that are answered with this step, for this federation
                only.

        Raises:
            PolicyError: this statistic of this data set was answered for another federation.
            UnexpectedMessageError: another process has gone on with this attempt.
        """
        state, record = self._seal(participant)
        stage = "answered" if participant.record().outcome in (Outcome.ANSWERED, Outcome.SENT) else "open"
        with self.journal.transaction() as connection:
            if statistic is not None:
                answer(connection, *statistic, stored.federation)
            self._change(connection, stored, sealed_state=state, sealed_record=record, stage=stage)
            self._append(connection, stored.manifest, step)
        return replace(stored, sealed_state=state, stage=stage)

    def keep_upload(self, stored: StoredAttempt, upload: str) -> StoredAttempt:
        """Store the id of the upload of the masked vector, before its first byte leaves."""
        with self.journal.transaction() as connection:
            self._change(connection, stored, upload=upload)
        return replace(stored, upload=upload)

    def drop(self, stored: StoredAttempt, reason: str) -> None:
        """Give an attempt up for good: its secrets are gone when this returns."""
        with self.journal.transaction() as connection:
            self._change(
                connection,
                stored,
                sealed_state=None,
                sealed_record=self._dropped_record(connection, stored.ctx),
                stage="answered" if stored.stage == "answered" else "dropped",
            )
            self._append(connection, stored.manifest, "dropped", reason=reason)

    def end(self, stored: StoredAttempt, *, round_is_over: bool) -> None:
        """Destroy what an attempt that is over leaves behind; the round's vector only with the round."""
        with self.journal.transaction() as connection:
            if stored.is_open:
                self._change(
                    connection,
                    stored,
                    sealed_state=None,
                    sealed_record=self._dropped_record(connection, stored.ctx),
                    stage="answered" if stored.stage == "answered" else "dropped",
                )
                self._append(connection, stored.manifest, "over")
            if round_is_over:
                key = (stored.federation, stored.round)
                connection.execute("DELETE FROM round_vector WHERE federation = ? AND round = ?", key)
                connection.execute("UPDATE attempt SET ended = 1 WHERE federation = ? AND round = ?", key)

    def check_base_model(self, model: bytes, federation: bytes) -> None:
        """Check that no update of a model was summed for another federation, or is about to be.

        Raises:
            PolicyError: one was; the difference of two such sums could be this institution's update.
        """
        query = "SELECT federation FROM attempt WHERE base_model = ? AND federation != ? AND stage IN ('open', 'answered')"
        row = self._row(query, model, federation)
        if row is not None:
            raise PolicyError(
                f"rule on base models: an update of model {to_hex(model)} is summed for federation {to_hex(row['federation'])}, and an "
                "institution never trains twice on one model: found it from another first model, with another seed"
            )

    def vector(self, config: FederationConfig, manifest: Manifest) -> RingVector | None:
        """The round's vector, entries of the config's ring [length], a copy to be masked in place; None before there is one."""
        key = (manifest.federation, manifest.round)
        row = self._row("SELECT sealed_vector FROM round_vector WHERE federation = ? AND round = ?", *key)
        if row is None:
            return None
        data = self.journal.sealer.open_field(row["sealed_vector"], _vector_place(manifest))
        writable = bytearray(data)
        vector: RingVector = np.frombuffer(writable, np.uint8).view(ring_dtype(config.ring_bits))
        return vector

    def keep_vector(
        self, manifest: Manifest, vector: RingVector, *, alongside: Callable[[sqlite3.Connection], None] = lambda _connection: None
    ) -> None:
        """Store the round's vector, and `alongside` in the same transaction what belongs to it; the first one counts."""
        sealed = self.journal.sealer.seal(vector.tobytes(), _vector_place(manifest))
        with self.journal.transaction() as connection:
            key = (manifest.federation, manifest.round)
            added = connection.execute("INSERT OR IGNORE INTO round_vector VALUES (?, ?, ?)", (*key, sealed))
            if added.rowcount:
                alongside(connection)

    def commitment(self, ctx: bytes) -> Commitment | None:
        """What was committed to in an attempt, or None."""
        row = self._row("SELECT * FROM contribution WHERE ctx = ?", ctx)
        if row is None:
            return None
        call = json.loads(row["call"])
        signed = SignedCall(RelayedCall.parse(call["request"]), from_hex(call["signature"]))
        return Commitment(self.journal.sealer.open_field(row["sealed_opening"], _place("contribution.opening", ctx)), signed)

    def keep_commitment(self, stored: StoredAttempt, commitment: Commitment) -> None:
        """Store a commitment before it is handed in; the first one counts."""
        sealed = self.journal.sealer.seal(commitment.opening, _place("contribution.opening", stored.ctx))
        with self.journal.transaction() as connection:
            call = json.dumps(commitment.call.to_json())
            connection.execute("INSERT OR IGNORE INTO contribution VALUES (?, ?, ?)", (stored.ctx, sealed, call))
            self._append(connection, stored.manifest, "commitment")

    def state(self, stored: StoredAttempt) -> bytes:
        """The participant's state, for `Participant.restore`.

        Raises:
            UnexpectedMessageError: it was destroyed: the attempt is over.
        """
        if stored.sealed_state is None:
            raise UnexpectedMessageError("this attempt is over for this institution")
        return self.journal.sealer.open_field(stored.sealed_state, _place("attempt.state", stored.ctx))

    def _seal(self, participant: AnyParticipant) -> tuple[bytes, bytes]:
        ctx, sealer = participant.terms.ctx, self.journal.sealer
        state = sealer.seal(participant.state(), _place("attempt.state", ctx))
        return state, sealer.seal(participant.record().to_bytes(), _place("attempt.record", ctx))

    def _record(self, ctx: bytes, sealed: bytes) -> AttemptRecord:
        return AttemptRecord.parse(self.journal.sealer.open_field(sealed, _place("attempt.record", ctx)))

    def _dropped_record(self, connection: sqlite3.Connection, ctx: bytes) -> bytes:
        sealed: bytes = connection.execute("SELECT sealed_record FROM attempt WHERE ctx = ?", (ctx,)).fetchone()["sealed_record"]
        record = self._record(ctx, sealed)
        if record.outcome is not Outcome.OPEN:
            return sealed
        return self.journal.sealer.seal(replace(record, outcome=Outcome.DROPPED).to_bytes(), _place("attempt.record", ctx))

    def _change(self, connection: sqlite3.Connection, stored: StoredAttempt, **columns: bytes | str | None) -> None:
        assignments = ", ".join(f"{name} = ?" for name in columns)
        # A sealed state has a nonce of its own: equal bytes are the very state that was read.
        changed = connection.execute(
            f"UPDATE attempt SET {assignments} WHERE ctx = ? AND sealed_state IS ?", (*columns.values(), stored.ctx, stored.sealed_state)
        )
        if changed.rowcount != 1:
            raise UnexpectedMessageError("another agent has gone on with this attempt with this journal: run one agent for each journal")

    def _append(self, connection: sqlite3.Connection, manifest: Manifest, stage: str, **detail: Any) -> None:
        numbers = {"round": manifest.round, "attempt": manifest.attempt}
        self.journal.append(connection, subject_of(manifest.federation), stage, **numbers, **detail)

    def _row(self, query: str, *values: Any) -> sqlite3.Row | None:
        rows = self.journal.rows(query, *values)
        return rows[0] if rows else None


def _attempt(row: sqlite3.Row) -> StoredAttempt:
    return StoredAttempt(
        federation=row["federation"],
        round=row["round"],
        attempt=row["attempt"],
        ctx=row["ctx"],
        manifest=Manifest.parse(json.loads(row["manifest"])),
        stage=row["stage"],
        sealed_state=row["sealed_state"],
        since=row["since"],
        upload=row["upload"],
    )


def _key(manifest: Manifest) -> tuple[bytes, int, int]:
    return manifest.federation, manifest.round, manifest.attempt


def _place(column: str, ctx: bytes) -> str:
    return f"{column}:{to_hex(ctx)}"


def _vector_place(manifest: Manifest) -> str:
    return f"round_vector.vector:{to_hex(manifest.federation)}:{manifest.round}"
