"""Several aggregators: what each signed about an attempt, the vectors that they sum again, and evidence against those who signed twice."""

from collections.abc import Iterator

from rexis.client.answers import Fields
from rexis.client.connection import Connection
from rexis.encoding import canonical_json, to_hex
from rexis.errors import MalformedMessageError, SignatureError
from rexis.protocol.approvals import Approval
from rexis.protocol.equivocation import Equivocation, contradictions
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.uploads import plan_parts


class ApprovalClient:
    """Calls to one aggregator of a federation; whoever belongs to the federation may read, its aggregators hand in."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def approvals(self, federation: bytes, round_number: int, attempt: int) -> tuple[Approval, ...]:
        """What aggregators signed about an attempt, as far as this one knows; no signature is checked here, see `check_approvals`."""
        path = f"{_path(federation, round_number, attempt)}/approvals"
        return Fields("approvals", self.connection.get(path)).items("items", Approval.parse)

    def approve(self, approval: Approval) -> None:
        """Hand in the caller's own approval; the same one again changes nothing.

        Raises:
            ServiceError: 409 `equivocation` if the caller signed another statement before.
        """
        path = f"{_path(*approval.attempt)}/approvals/{approval.kind}"
        headers = {"Content-Type": "application/json"}
        self.connection.request("PUT", path, content=canonical_json(approval.document()), headers=headers)

    def vector(self, federation: bytes, round_number: int, attempt: int, sender: str, total_bytes: int) -> Iterator[bytes]:
        """A survivor's masked vector, one part after the other.

        Args:
            sender: checksum address.
            total_bytes: what the vector has to have.

        Raises:
            MalformedMessageError: a part of another size; whether the bytes are right says their digest in the sender's message.
            ServiceError: the caller is no aggregator of this federation, or the attempt is over.
        """
        for part in plan_parts(total_bytes):
            path = f"{_path(federation, round_number, attempt)}/vectors/{sender}/parts/{part.number}"
            content = self.connection.request("GET", path, max_bytes=part.size).raw
            if len(content) != part.size:
                raise MalformedMessageError(
                    f"masked vector of {sender}: expected {part.size} bytes in part {part.number}, got {len(content)}"
                )
            yield content

    def equivocations(self, federation: bytes) -> tuple[Equivocation, ...]:
        """Evidence against aggregators that this one has; check it with `Equivocation.verify`."""
        path = f"/v1/federations/{to_hex(federation)}/equivocations"
        return Fields("equivocations", self.connection.get(path)).items("items", Equivocation.parse)

    def report(self, evidence: Equivocation) -> None:
        """Hand evidence in; the same again changes nothing.

        Raises:
            ServiceError: it is none.
        """
        federation, _, _ = evidence.first.attempt
        self.connection.post(f"/v1/federations/{to_hex(federation)}/equivocations", evidence.document(), repeatable=True)


def check_approvals(approvals: tuple[Approval, ...], config: FederationConfig, chain_id: int, registry: str) -> None:
    """Check what an aggregator says that others signed: each by an aggregator of this federation, and none by one that signed two.

    Raises:
        SignatureError: a signature is not that of an aggregator of this federation, or in another federation.
        EquivocationError: somebody signed two different statements about one attempt; the message names the address.
    """
    for approval in approvals:
        _check(approval, config, chain_id, registry)
    for evidence in contradictions(approvals):
        raise evidence.error()


def check_evidence(evidence: Equivocation, config: FederationConfig, chain_id: int, registry: str) -> None:
    """Check evidence against one of this federation's aggregators: nobody is named on anybody's word.

    Raises:
        SignatureError: it proves nothing about an aggregator of this federation.
    """
    for approval in (evidence.first, evidence.second):
        _check(approval, config, chain_id, registry)


def _check(approval: Approval, config: FederationConfig, chain_id: int, registry: str) -> None:
    if approval.signer not in config.aggregators or approval.attempt[0] != config.id(chain_id, registry):
        raise SignatureError(f"expected approvals by the federation's aggregators, got one by {approval.signer} that counts elsewhere")
    approval.verify(chain_id, registry)


def _path(federation: bytes, round_number: int, attempt: int) -> str:
    return f"/v1/federations/{to_hex(federation)}/rounds/{round_number}/attempts/{attempt}"
