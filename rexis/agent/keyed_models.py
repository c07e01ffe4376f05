"""Keying a model on the premises, and having the keyed one published by a trainer under the owner's signature.

The plain weights and the key stay here. What the trainer gets is a keyed transformation of the weights; if the members of a federation or
the public hold the plain ones (`knowledge`), whoever of them works with the trainer recovers the key, and it is obfuscation only.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from rexis import ee
from rexis.agent.model_files import model_record, read_model, write_model
from rexis.chain.deployments import Deployment
from rexis.chain.model_registry import REGISTRY, Authorisation, reason_number
from rexis.chain.signer import Signer
from rexis.client.relayed_calls import Relay, RelayClient, sign_call
from rexis.client.trainer import Keyed, Model, TrainerClient
from rexis.client.uploads import upload_file
from rexis.encoding import to_hex
from rexis.errors import DigestMismatchError
from rexis.models.public_bases import refuse_public_base
from rexis.models.spec import ModelSpec
from rexis.protocol.report_summary import ReportSummary

AUTHORISE_GAS = 300_000
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class PublicText:
    """What everybody may read of a model; names neither patients nor sites."""

    name: str
    description: str = ""


def keyed_as(key: ee.Key) -> Keyed:
    """What is said of a model under this key."""
    return Keyed(key.suite, key.mode, key.knowledge, key.id)


def encrypt_model_file(plain: Path, keyed: Path, key: ee.Key) -> bytes:
    """Write the keyed copy of a model file, and return its record (32 bytes).

    Raises:
        MalformedMessageError, EncodingError: not a model file of the key's architecture.
        PrivacyError: the key calls the model private, and it comes from a known public one.
    """
    model = read_model(plain, key.spec)
    _check_private(model, key)
    return write_model(keyed, ee.encrypt_model(model, key)).record


def decrypt_model_file(keyed: Path, plain: Path, key: ee.Key) -> bytes:
    """Write the plain copy of a keyed model file, and return its record (32 bytes)."""
    return write_model(plain, ee.decrypt_model(read_model(keyed, key.spec), key)).record


def _check_private(model: nn.Module, key: ee.Key) -> None:
    """Again, although keygen asks: a key may have been made from the specification alone."""
    if key.knowledge == "private":
        refuse_public_base(model.state_dict())


def publish_model(
    trainer: TrainerClient,
    signer: Signer,
    deployment: Deployment,
    file: Path,
    spec: ModelSpec,
    keyed: Keyed,
    text: PublicText,
    *,
    users: Sequence[str] = (),
    uri: str | None = None,
    report: ReportSummary | None = None,
    progress: Progress | None = None,
) -> Model:
    """Upload a keyed model file and vouch for it on chain; `TrainerClient.wait_for_model` tells when it is there.

    Args:
        file: of kind model, keyed: the trainer keeps it.
        users: accounts besides the owner that may use it.
        uri: where the public description is; None for the trainer's own copy.
        report: summary of the owner's privacy report on this model and its data.
        progress: called with (bytes stored, bytes in all).

    Raises:
        MalformedMessageError, EncodingError: not a model file of this specification.
        ServiceError: the trainer refuses it, or the contract would.
        DigestMismatchError: the trainer took on another model than the signed one.
    """
    record = model_record(file, spec)
    location = trainer.description_uri(signer.address, record) if uri is None else uri
    authorisation = Authorisation(record, spec.digest(), location)
    signed = sign_call(signer, deployment, REGISTRY, "authorise", *authorisation.arguments, gas=AUTHORISE_GAS)
    upload_id = upload_file(trainer.connection, file, progress=progress)
    model = trainer.publish_model(
        upload_id,
        spec,
        keyed,
        signed,
        name=text.name,
        description=text.description,
        users=users,
        report=report,
        idempotency_key=f"model-{upload_id}",
    )
    if model.record != record:
        raise DigestMismatchError(f"model {model.id} at the trainer", record, model.record)
    return model


def revoke_model(trainer: TrainerClient, signer: Signer, deployment: Deployment, model: Model, reason: str) -> Relay:
    """Take a model back on chain, for good; `RelayClient.wait_until_mined` tells when it is.

    Args:
        reason: one of `rexis.chain.model_registry.REASONS` but "none".

    Raises:
        ValueError: another reason, or another account's model.
        ServiceError: the contract refuses, e.g. because it was revoked before.
    """
    if model.owner != signer.address:
        raise ValueError(f"model {to_hex(model.record)} is of {model.owner}; only its owner takes it back")
    signed = sign_call(signer, deployment, REGISTRY, "revoke", model.record, reason_number(reason))
    return RelayClient(trainer.connection).hand_in(signed)
