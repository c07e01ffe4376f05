"""The aggregator: federations, what is due in their running rounds, and what rounds made.

Nothing here is believed by a participant: it compares manifests, survivors and models with what its own chain node says.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any, Self

from rexis.client.answers import Fields
from rexis.client.connection import Answer, Connection
from rexis.client.pages import fetch_pages
from rexis.client.relayed_calls import SignedCall
from rexis.encoding import canonical_json, checksum_address, sha256, to_hex
from rexis.errors import DigestMismatchError, EncodingError, MalformedMessageError
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.manifest import Manifest
from rexis.protocol.member_results import MemberResult
from rexis.protocol.secagg_messages import Envelope, Stage
from rexis.protocol.uploads import parse_content_digest

# A model of the largest federation that an aggregator takes, in single precision, with its header.
MAX_MODEL_BYTES = (1 << 28) + (1 << 20) + 8
# Two vectors in double precision.
MAX_STATE_BYTES = (1 << 30) + (1 << 20) + 8


@dataclass(frozen=True)
class Federation:
    """A federation as its founder and members see it.

    Attributes:
        id: on chain, 32 bytes.
        config: what it agreed on.
        state: founding, inviting, running, finished or failed; at an aggregator that does not lead it, witnessing.
        reason: why it failed, finished before its last round, or a witness does not sign; or "".
        joined: members that take part, ascending.
        round: that runs, or ran last; 0 before the first.
        rounds_total: of the plan.
        model: record of the newest global model, or digest of the statistic, 32 bytes.
        created_at: when the aggregator took it on.
        equivocators: aggregators that signed two different statements, says this one; see `ApprovalClient.equivocations`.
        leader: the aggregator that opens its attempts, says this one; "" before the first.
    """

    id: bytes
    config: FederationConfig
    state: str
    reason: str
    joined: tuple[str, ...]
    round: int
    rounds_total: int
    model: bytes
    created_at: datetime
    equivocators: tuple[str, ...] = ()
    leader: str = ""

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read an answer."""
        fields = Fields("federation", value)
        return cls(
            id=fields.digest("id"),
            config=FederationConfig.parse(fields.object("config")),
            state=fields.text("state"),
            reason=fields.optional_text("reason") or "",
            joined=fields.items("joined", _member),
            round=fields.integer("round"),
            rounds_total=fields.integer("rounds_total"),
            model=fields.digest("model"),
            created_at=fields.instant("created_at"),
            equivocators=fields.optional_items("equivocators", _member),
            leader=fields.optional_text("leader") or "",
        )


@dataclass(frozen=True)
class WorkItem:
    """A running attempt of one of the caller's federations.

    Attributes:
        federation: id, 32 bytes.
        round, attempt: from 1.
        stage: opening, keys, shares, masked, fixing, survivors, unmask, recording, results or finalising; see the aggregator's `Phase`.
        manifest: as the aggregator shows it; its digest stands on chain from the stage keys on.
        due: the caller could send its message of this stage, or its result, and has not.
        commitment_due: a commitment of the caller's would still count, and none is on chain yet.
    """

    federation: bytes
    round: int
    attempt: int
    stage: str
    manifest: Manifest
    due: bool
    commitment_due: bool

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read an answer."""
        fields = Fields("work item", value)
        return cls(
            federation=fields.digest("federation"),
            round=fields.integer("round"),
            attempt=fields.integer("attempt"),
            stage=fields.text("stage"),
            manifest=Manifest.parse(fields.object("manifest")),
            due=fields.flag("due"),
            commitment_due=fields.flag("commitment_due"),
        )


@dataclass(frozen=True)
class RoundRecord:
    """An attempt at a round that is over.

    Attributes:
        round, attempt: from 1.
        state: finished or aborted.
        reason: why it was aborted, or "".
        survivors: whose updates the sum holds, ascending; empty if none were fixed.
        base_model: record of the model that it started from, 32 bytes.
        model: record of the new model, 32 bytes; None if it was aborted.
        aggregate: digest of the sum, 32 bytes; None if it was aborted.
        metrics: canonical metrics document; None if there is none.
        opened_at, finished_at: when it began and ended; None where another aggregator led it than the one that is asked.
        transactions: 0x… by step: opened, fixed, finalised, abandoned.
        leader: the aggregator that opened it, says this one; "" before the chain has it.
    """

    round: int
    attempt: int
    state: str
    reason: str
    survivors: tuple[str, ...]
    base_model: bytes
    model: bytes | None
    aggregate: bytes | None
    metrics: dict[str, Any] | None
    opened_at: datetime | None
    finished_at: datetime | None
    transactions: dict[str, Any]
    leader: str = ""

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read an answer."""
        fields = Fields("round", value)
        return cls(
            round=fields.integer("round"),
            attempt=fields.integer("attempt"),
            state=fields.text("state"),
            reason=fields.optional_text("reason") or "",
            survivors=fields.items("survivors", _member),
            base_model=fields.digest("base_model"),
            model=fields.optional_digest("model"),
            aggregate=fields.optional_digest("aggregate"),
            metrics=fields.optional_object("metrics"),
            opened_at=fields.optional_instant("opened_at"),
            finished_at=fields.optional_instant("finished_at"),
            transactions=fields.object("transactions"),
            leader=fields.optional_text("leader") or "",
        )


class AggregatorClient:
    """Calls to one aggregator; uploads and relays go over the same `connection` (`upload_file`, `RelayClient`)."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def leading(self, federation: bytes) -> "AggregatorClient":
        """The client of the aggregator that leads a federation, over whose connection uploads and relays go: this one."""
        return self

    def account(self) -> str:
        """The address that a federation's config names as its aggregator.

        Raises:
            UnavailableError, ServiceError: its background process has never run.
        """
        return Fields("aggregator", self.connection.get("/v1/aggregator", authorised=False)).address("address")

    def found(self, config: FederationConfig, create: SignedCall, *, initial_model: str | None) -> Federation:
        """Found a federation; safe to repeat.

        Args:
            config: what its digest in the call stands for.
            create: the founder's signed call of `FederationRegistry.create`.
            initial_model: id of the complete upload of the model that round 1 starts from; None for a statistic.

        Raises:
            ServiceError: thresholds, call or model do not fit the config; the problem names the rule.
        """
        body = {"config": config.document(), **create.to_json(), "initial_model": initial_model}
        return Federation.parse(self.connection.post("/v1/federations", body, repeatable=True))

    def federation(self, federation: bytes) -> Federation:
        """One federation of the caller's.

        Raises:
            ServiceError: 404 if there is none, or the caller is neither founder nor member.
        """
        return Federation.parse(self.connection.get(_path(federation)))

    def federations(self) -> Iterator[Federation]:
        """The caller's federations, newest first."""
        return fetch_pages(self.connection, "/v1/federations", Federation.parse)

    def join(self, federation: bytes) -> Federation:
        """Take part as a member; rounds start when all members have joined. Safe to repeat."""
        return Federation.parse(self.connection.request("PUT", f"{_path(federation)}/membership").body)

    def work(self) -> tuple[WorkItem, ...]:
        """Every running attempt of the caller's federations; cheap, so that it can be asked often."""
        return Fields("work", self.connection.get("/v1/work")).items("items", WorkItem.parse)

    def messages(self, federation: bytes, round_number: int, attempt: int, stage: Stage) -> tuple[Envelope, ...]:
        """What counts of a closed stage; no signature is checked here.

        Raises:
            ServiceError: 409 while the stage is open, and when the attempt is over.
        """
        path = f"{_path(federation)}/rounds/{round_number}/attempts/{attempt}/messages/{stage}"
        return Fields("messages", self.connection.get(path)).items("messages", lambda value: Envelope.parse(canonical_json(value)))

    def send(self, federation: bytes, round_number: int, attempt: int, message: Envelope) -> None:
        """Hand in a signed message; the same one again changes nothing.

        Raises:
            ServiceError: 409 `equivocation` if another message of this stage came before, `stage-closed` if it is over.
        """
        path = f"{_path(federation)}/rounds/{round_number}/attempts/{attempt}/messages/{message.stage}"
        self.connection.request("PUT", path, content=message.to_bytes(), headers={"Content-Type": "application/json"})

    def model(self, federation: bytes) -> bytes:
        """The newest global model file; compare its record with the manifest's.

        Raises:
            DigestMismatchError: it was damaged on the way.
        """
        return _checked(self.connection.request("GET", f"{_path(federation)}/model", max_bytes=MAX_MODEL_BYTES))

    def initial_model(self, federation: bytes) -> bytes:
        """The model file that the founder brought; compare its record with the one that round 1 was opened on.

        Raises:
            DigestMismatchError: it was damaged on the way.
        """
        return _checked(self.connection.request("GET", f"{_path(federation)}/initial-model", max_bytes=MAX_MODEL_BYTES))

    def opened_sum(self, federation: bytes, round_number: int, attempt: int, size: int) -> bytes:
        """The sum of an attempt, little-endian, as it was opened; compare its digest with the chain's `aggregate`.

        Args:
            size: bytes that it has to have at most.

        Raises:
            ServiceError: 404 before it is open, and of an attempt that was given up.
            DigestMismatchError: it was damaged on the way.
        """
        path = f"{_path(federation)}/rounds/{round_number}/attempts/{attempt}/sum"
        return _checked(self.connection.request("GET", path, max_bytes=size))

    def state_result(self, result: MemberResult) -> None:
        """Hand in what the caller found behind a padded sum; the same again changes nothing.

        Raises:
            ServiceError: 409 `equivocation` if the caller stated another result before, `stage-closed` if it is over.
        """
        path = f"{_path(result.federation)}/rounds/{result.round}/attempts/{result.attempt}/results"
        content = canonical_json(result.document())
        self.connection.request("PUT", path, content=content, headers={"Content-Type": "application/json"})

    def member_results(self, federation: bytes, round_number: int, attempt: int) -> tuple[MemberResult, ...]:
        """What members stated about an attempt; no signature is checked here."""
        path = f"{_path(federation)}/rounds/{round_number}/attempts/{attempt}/results"
        return Fields("member results", self.connection.get(path)).items("items", MemberResult.parse)

    def server_state(self, federation: bytes) -> bytes:
        """The file of the server's state beside the newest global model; compare its SHA-256 with the metrics of that model's round.

        Raises:
            ServiceError: 404 before the first round is final, or for a strategy without state.
            DigestMismatchError: it was damaged on the way.
        """
        return _checked(self.connection.request("GET", f"{_path(federation)}/server-state", max_bytes=MAX_STATE_BYTES))

    def result(self, federation: bytes) -> bytes:
        """The result document of a statistic in canonical JSON; its SHA-256 is the model that the round put on chain.

        Raises:
            ServiceError: 404 before its round is finished.
            DigestMismatchError: it was damaged on the way.
        """
        return _checked(self.connection.request("GET", f"{_path(federation)}/result"))

    def rounds(self, federation: bytes) -> tuple[RoundRecord, ...]:
        """Attempts that are over, in their order."""
        return Fields("rounds", self.connection.get(f"{_path(federation)}/rounds")).items("items", RoundRecord.parse)


def changes_of_lead(rounds: Sequence[RoundRecord]) -> list[tuple[RoundRecord, RoundRecord]]:
    """Attempts that follow each other and were opened by different aggregators: the last of one, and the first of the other."""
    led = [each for each in rounds if each.leader]
    return [(before, after) for before, after in pairwise(led) if before.leader != after.leader]


def _path(federation: bytes) -> str:
    return f"/v1/federations/{to_hex(federation)}"


def _member(value: Any) -> str:
    try:
        return checksum_address(value)
    except EncodingError as error:
        raise MalformedMessageError(f"federation: {error}") from error


def _checked(answer: Answer) -> bytes:
    header = answer.headers.get("content-digest")
    if header is None:
        raise MalformedMessageError("expected a Content-Digest with a file, got none")
    announced = parse_content_digest(header)
    if sha256(answer.raw) != announced:
        raise DigestMismatchError("downloaded file", announced, sha256(answer.raw))
    return answer.raw
