"""What `rexis verify receipt` claims of a bundle, and how each claim is checked with what the auditor gave. Nothing else is asked.

A claim for which nothing was given is NOT CHECKED. Without `rpc_url` no connection is opened; torch is loaded for `computation` alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

from rexis.encoding import parse_json, to_hex
from rexis.errors import CertificateError, DigestMismatchError, MalformedMessageError, SignatureError
from rexis.models.spec import ModelSpec
from rexis.protocol.claims import Check, Claim, assess
from rexis.protocol.receipt_bundle import MAX_BUNDLE_BYTES, ReceiptBundle

MAX_SPEC_BYTES = 1 << 16
PROFILE = "fp32-cpu"

CLAIMS: Mapping[str, str] = MappingProxyType(
    {
        "form": "The file is a receipt bundle in its one canonical form",
        "checksum": "The file is as it was written",
        "receipt-signature": "The issuer signed model, input, output, time and salt for this chain",
        "issuer-expected": "The issuer is the one you expect",
        "batch-id": "Chain, registry, operator, owner, model and number make the batch's id",
        "owner-expected": "The batch is of answers of the model of the owner you expect",
        "inclusion": "The batch's record commits to the receipt at its index",
        "record-expected": "The record is the one that you read from the chain",
        "record-on-chain": "The registry holds the batch, from the transaction and block that the bundle names",
        "batch-unrejected": "No challenge of an answer in the batch was upheld on chain",
        "model-authorised": "The owner vouches for the model on chain, and has not taken it back",
        "model-record": "The model file is the model of the receipt",
        "input": "The input file holds the input of the receipt",
        "output": "The output file holds the output of the receipt",
        "computation": "The model gives this output for this input, by re-execution on encrypted values",
        "privacy": "Nobody but who holds the keys could read input or output",
    }
)
CHALLENGED = "an answer in the batch is challenged on chain, and it is not decided yet: check again later"
NO_STATEMENT_ON_PRIVACY = "no check of a receipt says anything about confidentiality"


@dataclass(frozen=True)
class Evidence:
    """What the auditor gives beside the bundle; None where he has nothing.

    Attributes:
        issuer, owner: checksum addresses that he expects.
        record: 32 bytes that he read from the chain himself.
        rpc_url: a node that he trusts.
        model, spec: encrypted model file, and its declarative spec.
        inputs, outputs: encrypted batch and output files.
    """

    issuer: str | None = None
    owner: str | None = None
    record: bytes | None = None
    rpc_url: str | None = None
    model: Path | None = None
    spec: Path | None = None
    inputs: Path | None = None
    outputs: Path | None = None


def read_bundle(path: Path) -> bytes:
    """The bytes of a file, one more than a bundle may have at most."""
    with path.open("rb") as file:
        return file.read(MAX_BUNDLE_BYTES + 1)


def examine(content: bytes, evidence: Evidence) -> list[Claim]:
    """Check a bundle's claims.

    Raises:
        UnavailableError: the node does not answer.
        WrongChainError, ConfigurationError: the node is not on a chain whose contracts this side knows.
        OSError: a file can not be read.
    """
    try:
        bundle = ReceiptBundle.parse(content)
    except MalformedMessageError as error:
        unreadable = dict.fromkeys(CLAIMS, "the file could not be read as a bundle")
        return assess(CLAIMS, {**unreadable, "form": Check(partial(_refuse, error)), "privacy": NO_STATEMENT_ON_PRIVACY})
    checks = {
        "form": Check(lambda: None),
        "checksum": Check(bundle.verify_checksum),
        "batch-id": Check(bundle.verify_batch_id),
        "inclusion": Check(bundle.verify_inclusion, needs=("batch-id",)),
        "privacy": NO_STATEMENT_ON_PRIVACY,
        **_expectations(bundle, evidence),
        **_on_chain(bundle, evidence),
        **_opened(bundle, evidence),
    }
    return assess(CLAIMS, checks)


def _refuse(error: Exception) -> None:
    raise error


def _expectations(bundle: ReceiptBundle, evidence: Evidence) -> dict[str, Check | str]:
    def verify_issuer() -> None:
        if bundle.receipt.issuer != evidence.issuer:
            raise SignatureError(f"expected the issuer {evidence.issuer}, got {bundle.receipt.issuer}")

    def verify_owner() -> None:
        if bundle.batch.owner != evidence.owner:
            raise CertificateError(f"expected the owner {evidence.owner}, got {bundle.batch.owner}")

    def verify_record() -> None:
        if evidence.record is not None and bundle.record != evidence.record:
            raise DigestMismatchError("record", evidence.record, bundle.record)

    missing = {
        "issuer-expected": f"say with --issuer whether {bundle.receipt.issuer} is the provider",
        "owner-expected": f"say with --owner whether {bundle.batch.owner} is the model's owner",
        "record-expected": f"say with --record what the chain holds for {to_hex(bundle.batch.id)}",
    }
    # Whose name stands in the file says nothing before the signature, and the batch's id, bind it.
    return {
        "issuer-expected": _given(evidence.issuer, Check(verify_issuer, needs=("receipt-signature",)), missing["issuer-expected"]),
        "owner-expected": _given(evidence.owner, Check(verify_owner, needs=("batch-id",)), missing["owner-expected"]),
        "record-expected": _given(evidence.record, Check(verify_record), missing["record-expected"]),
    }


def _on_chain(bundle: ReceiptBundle, evidence: Evidence) -> dict[str, Check | str]:
    if evidence.rpc_url is None:
        missing = "name a node with --rpc"
        signed = Check(partial(_verify_signature_offline, bundle))
        return {"receipt-signature": signed, "record-on-chain": missing, "batch-unrejected": missing, "model-authorised": missing}
    from rexis.chain.connection import Chain
    from rexis.chain.receipt_batches import chain_id_of, is_contested, verify_committed, verify_signed, verify_unrejected, verify_vouched
    from rexis.cli.identity import trusted_deployment

    # The node says which chain it is, and is held to that chain's record: what the bundle says is what is to be checked.
    chain = Chain.connect(evidence.rpc_url, trusted_deployment(chain_id_of(evidence.rpc_url)))
    # Another batch's fate says nothing, so this one has to be the chain's first.
    unrejected = Check(partial(verify_unrejected, chain, bundle.batch.id), needs=("record-on-chain",))
    return {
        "receipt-signature": Check(partial(verify_signed, chain, bundle)),
        "record-on-chain": Check(partial(verify_committed, chain, bundle)),
        "batch-unrejected": CHALLENGED if is_contested(chain, bundle.batch.id) else unrejected,
        "model-authorised": Check(partial(verify_vouched, chain, bundle.batch.owner, bundle.receipt.model)),
    }


def _verify_signature_offline(bundle: ReceiptBundle) -> None:
    try:
        bundle.verify_signature()
    except SignatureError as error:
        raise SignatureError(f"{error}; if {bundle.receipt.issuer} is a contract account, check again with --rpc") from error


def _opened(bundle: ReceiptBundle, evidence: Evidence) -> dict[str, Check | str]:
    from rexis.audit.receipt_files import find_item, verify_model_file

    receipt = bundle.receipt

    def verify_model(path: Path, spec: Path) -> None:
        verify_model_file(receipt, path, _model_spec(spec))

    def verify_computed(model: Path, spec: Path, inputs: Path, outputs: Path) -> None:
        from rexis.audit.receipt_execution import verify_computation
        from rexis.audit.reexecution import PROFILES

        item, claimed = find_item(inputs, "batch", receipt.input), find_item(outputs, "output", receipt.output)
        verify_computation(receipt, model, _model_spec(spec), item, claimed, PROFILES[PROFILE])

    checks: dict[str, Check | str] = {
        "model-record": "give the encrypted model with --model and its spec with --spec",
        "input": "give the encrypted input with --inputs",
        "output": "give the encrypted output with --outputs",
        "computation": "give --model, --spec, --inputs and --outputs",
    }
    if evidence.model and evidence.spec:
        checks["model-record"] = Check(partial(verify_model, evidence.model, evidence.spec))
    if evidence.inputs:
        checks["input"] = Check(_ignoring(partial(find_item, evidence.inputs, "batch", receipt.input)))
    if evidence.outputs:
        checks["output"] = Check(_ignoring(partial(find_item, evidence.outputs, "output", receipt.output)))
    if evidence.model and evidence.spec and evidence.inputs and evidence.outputs:
        files = evidence.model, evidence.spec, evidence.inputs, evidence.outputs
        checks["computation"] = Check(partial(verify_computed, *files), needs=("model-record", "input", "output"))
    return checks


def _model_spec(path: Path) -> ModelSpec:
    with path.open("rb") as file:
        return ModelSpec.parse(parse_json(file.read(MAX_SPEC_BYTES + 1), max_bytes=MAX_SPEC_BYTES))


def _given(value: object, check: Check, otherwise: str) -> Check | str:
    return otherwise if value is None else check


def _ignoring(find: Callable[[], object]) -> Callable[[], None]:
    """The search as a check: what it finds is not needed."""

    def verify() -> None:
        find()

    return verify
