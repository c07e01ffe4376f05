"""The trainer: encrypted batches."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Any, Self

from rexis.client.answers import Fields
from rexis.client.connection import Connection
from rexis.client.pages import fetch_pages
from rexis.errors import MalformedMessageError, UnavailableError
from rexis.protocol.file_spec import FileSpec

DECIDED = frozenset({"accepted", "refused", "failed"})
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0
_BATCH_ID = re.compile(r"[0-9a-f-]{36}", re.ASCII)


@dataclass(frozen=True)
class Batch:
    """An uploaded batch and what its check found.

    Attributes:
        id: the trainer's id.
        state: queued, running, then accepted, refused (the file is not what its specification says) or failed (the trainer's fault).
        reason: why it was refused or failed.
        record: root record over specification and tensors, 32 bytes, once accepted.
        digests: tensor digests by name, 32 bytes each, once accepted.
    """

    id: str
    state: str
    reason: str | None
    record: bytes | None
    digests: dict[str, bytes]

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read an answer."""
        fields = Fields("batch", value)
        batch_id = fields.text("id")
        if not _BATCH_ID.fullmatch(batch_id):  # it becomes part of a path
            raise MalformedMessageError(f"batch: expected an id in the form of a UUID, got {batch_id!r}")
        return cls(
            id=batch_id,
            state=fields.text("state"),
            reason=fields.optional_text("reason"),
            record=fields.optional_digest("record"),
            digests=dict(fields.optional_items("tensors", _tensor)),
        )


class TrainerClient:
    """Calls to one trainer; files go through `rexis.client.uploads`."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def submit_batch(self, upload_id: str, spec: FileSpec, *, idempotency_key: str) -> Batch:
        """Make a complete upload a batch, which the trainer checks; safe to repeat with the same key."""
        body = {"upload_id": upload_id, "spec": spec.document()}
        return Batch.parse(self.connection.post("/v1/batches", body, idempotency_key=idempotency_key))

    def batch(self, batch_id: str) -> Batch:
        """One batch of the caller's."""
        return Batch.parse(self.connection.get(f"/v1/batches/{batch_id}"))

    def batches(self) -> Iterator[Batch]:
        """The caller's batches, newest first."""
        return fetch_pages(self.connection, "/v1/batches", Batch.parse)

    def wait_for_batch(self, batch_id: str, *, timeout_s: float) -> Batch:
        """The batch once its check has come to an end, whichever it is.

        Raises:
            UnavailableError: it has not in time.
        """
        deadline, pause = monotonic() + timeout_s, FIRST_PAUSE_S
        while (batch := self.batch(batch_id)).state not in DECIDED:
            if monotonic() > deadline:
                raise UnavailableError(f"batch {batch_id} is still {batch.state} after {timeout_s:.0f} s; ask for it again later")
            sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)
        return batch


def _tensor(value: Any) -> tuple[str, bytes]:
    fields = Fields("tensor", value)
    return fields.text("name"), fields.digest("digest")
