"""The trainer: encrypted batches, keyed models, and questions to them."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Any, Self, TypeVar

from rexis.client.answers import Fields
from rexis.client.connection import Connection
from rexis.client.pages import fetch_pages
from rexis.client.relayed_calls import SignedCall
from rexis.commitments import Receipt
from rexis.encoding import sha256, to_hex
from rexis.errors import DigestMismatchError, MalformedMessageError, UnavailableError
from rexis.models.knowledge import protection
from rexis.models.spec import ModelSpec
from rexis.protocol.file_spec import FileSpec
from rexis.protocol.report_summary import ReportSummary
from rexis.protocol.uploads import parse_content_digest

DECIDED = frozenset({"accepted", "refused", "failed"})
ENDED = frozenset({"answered", "refused", "failed"})
SETTLED = frozenset({"authorised", "revoked", "refused", "failed"})
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0
# What a trainer accepts as one question bounds its answer; with room for the header.
MAX_OUTPUT_BYTES = (64 << 20) + (2 << 20)
_ID = re.compile(r"[0-9a-f-]{36}", re.ASCII)


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
        return cls(
            id=_id(fields, "id"),
            state=fields.text("state"),
            reason=fields.optional_text("reason"),
            record=fields.optional_digest("record"),
            digests=dict(fields.optional_items("tensors", _tensor)),
        )


@dataclass(frozen=True)
class Keyed:
    """How a model was keyed, by its owner's word.

    Attributes:
        suite: dense or permutation.
        mode: infer or train.
        knowledge: who holds the plain weights: private, members or public.
        key_id: public name of the key, 0x and 32 digits.
    """

    suite: str
    mode: str
    knowledge: str
    key_id: str

    @property
    def protection(self) -> str:
        """What may be said of it: "keyed transformation", or "obfuscation only" if others hold the plain weights."""
        return protection(self.knowledge)

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read an answer; the label is not taken from there."""
        fields = Fields("keying", value)
        keyed = cls(fields.text("suite"), fields.text("mode"), fields.text("knowledge"), fields.text("key_id"))
        try:
            protection(keyed.knowledge)
        except ValueError as error:
            raise MalformedMessageError(f"keying: {error}") from error
        return keyed


@dataclass(frozen=True)
class Model:
    """A keyed model at a trainer.

    Attributes:
        id: the trainer's id.
        owner: checksum address.
        name, description: public.
        spec: its architecture.
        record: model record of the keyed weights, 32 bytes: what the chain and receipts name.
        keyed: how it was keyed.
        report: summary of its owner's privacy report, by his word; None where he gave none.
        state: checking, authorising, authorised, revoked, refused (its file is not what was signed), or failed.
        reason: why it was refused, failed or revoked.
        uri: of the public description, as it stands on chain.
        users: accounts besides the owner that may use it; empty for those.
        transaction_hash, block_number: where the chain last said something about it.
    """

    id: str
    owner: str
    name: str
    description: str
    spec: ModelSpec
    record: bytes
    keyed: Keyed
    report: ReportSummary | None
    state: str
    reason: str | None
    uri: str | None
    users: tuple[str, ...]
    transaction_hash: bytes | None
    block_number: int | None

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read an answer.

        Raises:
            MalformedMessageError: a field is missing, the digest is not that of the specification, or the report's grade is better than
                its verdicts and the knowledge of the plain weights admit.
        """
        fields = Fields("model", value)
        spec = ModelSpec.parse(fields.object("model_spec"))
        if fields.digest("spec_digest") != spec.digest():
            raise MalformedMessageError(f"model: expected spec digest {to_hex(spec.digest())}, got {to_hex(fields.digest('spec_digest'))}")
        keyed = Keyed.parse(fields.object("ee"))
        report = None if (summary := fields.optional_object("report")) is None else ReportSummary.parse(summary)
        if report is not None:
            report.check_knowledge(keyed.knowledge)
        return cls(
            id=_id(fields, "id"),
            owner=fields.address("owner"),
            name=fields.text("name"),
            description=fields.text("description"),
            spec=spec,
            record=fields.digest("record"),
            keyed=keyed,
            report=report,
            state=fields.text("state"),
            reason=fields.optional_text("reason"),
            uri=fields.optional_text("uri"),
            users=fields.optional_items("users", str),
            transaction_hash=fields.optional_digest("transaction_hash"),
            block_number=fields.optional_integer("block_number"),
        )


@dataclass(frozen=True)
class Inference:
    """A question to a model.

    Attributes:
        id, model: the trainer's ids.
        state: queued, running, then answered, refused (rows or model do not allow an answer) or failed (the trainer's fault).
        reason: why it was refused or failed.
        items: number of rows, once the trainer looked at them.
        items_done: how many of them have an answer.
        output_record: record of the file of answers, 32 bytes, once answered.
        output_bytes: its size.
    """

    id: str
    model: str
    state: str
    reason: str | None
    items: int | None
    items_done: int
    output_record: bytes | None
    output_bytes: int | None

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read an answer."""
        fields = Fields("inference", value)
        return cls(
            id=_id(fields, "id"),
            model=_id(fields, "model"),
            state=fields.text("state"),
            reason=fields.optional_text("reason"),
            items=fields.optional_integer("items"),
            items_done=fields.integer("items_done"),
            output_record=fields.optional_digest("output_record"),
            output_bytes=fields.optional_integer("output_bytes"),
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

    # Keyed models.

    def description_uri(self, owner: str, record: bytes) -> str:
        """Where this trainer shows the public description of a model: what `uri` on chain may point at."""
        return f"{self.connection.base_url}/v1/descriptions/{owner}/{to_hex(record)}"

    def publish_model(
        self,
        upload_id: str,
        spec: ModelSpec,
        keyed: Keyed,
        signed: SignedCall,
        *,
        name: str,
        description: str = "",
        users: Sequence[str] = (),
        report: ReportSummary | None = None,
        idempotency_key: str,
    ) -> Model:
        """Hand in a keyed model: a complete upload, and the signed call of `ModelRegistry.authorise` that names its record.

        Args:
            report: summary of the owner's privacy report; the report itself stays with him.

        Raises:
            ServiceError: the trainer refuses it, or the contract would: the problem has the decoded error.
        """
        ee = {"suite": keyed.suite, "mode": keyed.mode, "knowledge": keyed.knowledge, "key_id": keyed.key_id}
        public = {"name": name, "description": description, "users": list(users)}
        told = {"ee": ee, "report": None if report is None else report.document()}
        body = {"upload_id": upload_id, "model_spec": spec.document(), **told, **public, **signed.to_json()}
        return Model.parse(self.connection.post("/v1/models", body, idempotency_key=idempotency_key))

    def model(self, model_id: str) -> Model:
        """One model that the caller owns or may use.

        Raises:
            ServiceError: 404 if there is none.
        """
        return Model.parse(self.connection.get(f"/v1/models/{model_id}"))

    def models(self) -> Iterator[Model]:
        """The models that the caller owns or may use, newest first."""
        return fetch_pages(self.connection, "/v1/models", Model.parse)

    def set_users(self, model_id: str, users: Sequence[str]) -> Model:
        """Name the accounts that may use a model of the caller's besides the caller."""
        content = json.dumps({"users": list(users)}).encode()
        answer = self.connection.request(
            "PUT", f"/v1/models/{model_id}/users", content=content, headers={"Content-Type": "application/json"}
        )
        return Model.parse(answer.body)

    def wait_for_model(self, model_id: str, *, timeout_s: float, on_state: Callable[[str], None] = lambda _state: None) -> Model:
        """The model once it is authorised, revoked, refused or failed.

        Args:
            on_state: told each new state.

        Raises:
            UnavailableError: it is none of them in time.
        """
        return _settled(lambda: self.model(model_id), SETTLED, timeout_s, lambda model: on_state(model.state))

    # Questions.

    def infer(self, model_id: str, upload_id: str, *, idempotency_key: str) -> Inference:
        """Ask a model about a complete upload of encrypted rows; safe to repeat with the same key."""
        body = {"model": model_id, "upload_id": upload_id}
        return Inference.parse(self.connection.post("/v1/inferences", body, idempotency_key=idempotency_key))

    def inference(self, inference_id: str) -> Inference:
        """One question of the caller's."""
        return Inference.parse(self.connection.get(f"/v1/inferences/{inference_id}"))

    def inferences(self) -> Iterator[Inference]:
        """The caller's questions, newest first."""
        return fetch_pages(self.connection, "/v1/inferences", Inference.parse)

    def wait_for_inference(
        self, inference_id: str, *, timeout_s: float, on_progress: Callable[[Inference], None] = lambda _inference: None
    ) -> Inference:
        """The question once it came to an end, whichever it is.

        Args:
            on_progress: told each time the trainer was asked.

        Raises:
            UnavailableError: it has not in time.
        """
        return _settled(lambda: self.inference(inference_id), ENDED, timeout_s, on_progress)

    def output(self, inference_id: str) -> bytes:
        """The file of encrypted answers, kind output.

        Raises:
            ServiceError: 409 if there is no answer (yet).
            DigestMismatchError: it was damaged on the way.
        """
        answer = self.connection.request("GET", f"/v1/inferences/{inference_id}/output", max_bytes=MAX_OUTPUT_BYTES)
        announced = parse_content_digest(answer.headers.get("content-digest", ""))
        if (got := sha256(answer.raw)) != announced:
            raise DigestMismatchError(f"output of inference {inference_id}", announced, got)
        return answer.raw

    def receipts(self, inference_id: str) -> Iterator[tuple[int, Receipt]]:
        """Row and receipt of every answer, in the order of the rows; nothing of them is verified yet."""
        return fetch_pages(self.connection, f"/v1/inferences/{inference_id}/receipts", _item_receipt)


Settled = TypeVar("Settled", Model, Inference)


def _settled(ask: Callable[[], Settled], states: frozenset[str], timeout_s: float, on_answer: Callable[[Settled], None]) -> Settled:
    deadline, pause = monotonic() + timeout_s, FIRST_PAUSE_S
    while True:
        found = ask()
        on_answer(found)
        if found.state in states:
            return found
        if monotonic() > deadline:
            raise UnavailableError(f"{found.id} is still {found.state} after {timeout_s:.0f} s; ask for it again later")
        sleep(pause)
        pause = min(1.5 * pause, LONGEST_PAUSE_S)


def _id(fields: Fields, name: str) -> str:
    found = fields.text(name)
    if not _ID.fullmatch(found):  # it becomes part of a path
        raise MalformedMessageError(f"expected an id in the form of a UUID in {name!r}, got {found!r}")
    return found


def _item_receipt(value: Any) -> tuple[int, Receipt]:
    fields = Fields("receipt of a row", value)
    return fields.integer("item"), Receipt.parse(fields.object("receipt"))


def _tensor(value: Any) -> tuple[str, bytes]:
    fields = Fields("tensor", value)
    return fields.text("name"), fields.digest("digest")
