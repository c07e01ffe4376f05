"""Foundings: a config, the founder's signed call that stands for it, and the rules that both must keep."""

from typing import Any

from sqlalchemy.orm import Session

from rexis.chain.calls import decode_call
from rexis.encoding import to_hex
from rexis.errors import BelowThresholdError, MalformedMessageError, ProtocolError
from rexis.protocol.federation_config import FederationConfig
from rexis.secagg.graph import is_complete, neighbourhood_threshold
from rexis.secagg.payloads import update_encoding
from rexis.secagg.privacy import check_claim
from rexis.secagg.thresholds import thresholds
from services.aggregator.global_models import MAX_PARAMETERS, ModelFile, read_upload
from services.aggregator.models import Federation, FederationAggregator, Member
from services.aggregator.projection import REGISTRY
from services.foundation.database import now
from services.foundation.objects import ObjectStore
from services.foundation.uploads import StoredUpload
from services.foundation.uploads.records import Upload, abandon_upload


def check_config(config: FederationConfig, *, caller: str, aggregator: str) -> None:
    """Refuse what this aggregator can not carry, and thresholds under which a single update could be opened.

    Raises:
        ProtocolError: with the rule that is broken and the value that would do.
    """
    if config.founder != caller:
        raise ProtocolError(f"founder: expected the account that is signed in, {caller}, got {config.founder}")
    check_aggregators(config, aggregator)
    check_thresholds(len(config.members), config.collusion_bound, config.threshold, config.min_survivors)
    if config.degree is not None and not is_complete(len(config.members), config.degree):
        try:
            neighbourhood_threshold(len(config.members), config.collusion_bound, config.degree)
        except BelowThresholdError as error:
            raise ProtocolError(f"degree: {error}") from error
    size = config.length if config.training is None else max(config.length, config.training.trained)
    if size > MAX_PARAMETERS:
        raise ProtocolError(f"model: expected at most {MAX_PARAMETERS} parameters, and entries of a masked vector, got {size}")
    try:
        update_encoding(config)
        check_claim(config)
    except ValueError as error:
        raise ProtocolError(f"training: {error}") from error


def check_aggregators(config: FederationConfig, aggregator: str) -> None:
    """Refuse a federation that this aggregator does not sign for, and a quorum that the registry would refuse.

    Raises:
        ProtocolError: with the rule that is broken and the value that would do.
    """
    if aggregator not in config.aggregators:
        raise ProtocolError(f"aggregators: expected this one, {aggregator}, among {', '.join(config.aggregators)}")
    count = len(config.aggregators)
    if not count < 2 * config.quorum <= 2 * count:
        raise ProtocolError(f"quorum: expected {count // 2 + 1} to {count}, above half of {count} aggregators, got {config.quorum}")


def check_thresholds(members: int, collusion_bound: int, threshold: int, min_survivors: int) -> None:
    """Refuse thresholds under which a single update could be opened, or that no round could reach; higher ones than needed are sound.

    Raises:
        ProtocolError: with the rule that is broken and the value that would do.
    """
    try:
        needed = thresholds(members, collusion_bound)
    except BelowThresholdError as error:
        raise ProtocolError(f"collusion_bound: {error}; a sum with fewer than two honest inputs shows one of them") from error
    rule = f"for n = {members} and t_c = {collusion_bound}"
    if threshold < needed.threshold:
        raise ProtocolError(f"threshold: expected at least floor((n + t_c) / 2) + 1 = {needed.threshold} {rule}, got {threshold}")
    least = max(threshold, needed.min_survivors)
    if min_survivors < least:
        raise ProtocolError(f"min_survivors: expected at least max(t, t_c + 2) = {least} {rule} and t = {threshold}, got {min_survivors}")
    if min_survivors > members:
        raise ProtocolError(f"min_survivors: expected at most n = {members}, got {min_survivors}: no round could ever end")


def check_founding(config: FederationConfig, call_data: bytes, model: bytes) -> None:
    """Compare the arguments of the founder's `create` with the config that it stands for.

    Args:
        call_data: what the founder signed.
        model: record of the initial model, or digest of the statistic, 32 bytes.

    Raises:
        MalformedMessageError: another function, or other arguments; the message names them.
    """
    function, arguments = decode_call(REGISTRY, call_data)
    if function != "create":
        raise MalformedMessageError(f"call: expected {REGISTRY}.create, got {REGISTRY}.{function}")
    given: dict[str, Any] = arguments["founding"]
    expected: dict[str, Any] = {
        "configHash": config.digest,
        "model": model,
        "minSurvivors": config.min_survivors,
        "quorum": config.quorum,
        "participants": list(config.roster),
        "aggregators": list(config.aggregators),
    }
    differing = [f"{name}: expected {_shown(value)}, got {_shown(given[name])}" for name, value in expected.items() if given[name] != value]
    if differing:
        raise MalformedMessageError(f"call: the signed founding does not fit the config: {'; '.join(differing)}")


def initial_model(config: FederationConfig, upload: StoredUpload | None, objects: ObjectStore) -> ModelFile | None:
    """The model that the first round starts from; None for a statistic.

    Raises:
        ProtocolError: missing for training, or given for a statistic.
        MalformedMessageError, EncodingError: not a model file of the config's spec.
    """
    if (config.training is None) != (upload is None):
        raise ProtocolError("initial_model: expected the upload of a model file for training, and none for a statistic")
    if config.training is None or upload is None:
        return None
    return read_upload(upload, objects, config.training.model)


def give_up_upload(session: Session, upload: StoredUpload) -> None:
    """Have an upload deleted whose content was taken over."""
    row = session.get(Upload, upload.id, with_for_update=True)
    if row is not None and row.state == "complete":
        abandon_upload(row)


def found(
    session: Session, config: FederationConfig, federation_id: str, *, model: bytes, intent_key: str, state: str = "founding"
) -> Federation:
    """Take on a federation whose founding is promised to the chain in the same transaction, or witness one that another leads."""
    federation = Federation(
        id=federation_id,
        founder=config.founder,
        config=config.document(),
        state=state,
        round=0,
        rounds_total=config.rounds,
        model=to_hex(model),
        intent_key=intent_key,
        created_at=now(),
        members=[Member(position=position, address=address) for position, address in enumerate(config.roster, start=1)],
        aggregators=[FederationAggregator(address=address) for address in config.aggregators],
    )
    session.add(federation)
    session.flush()
    return federation


def _shown(value: Any) -> str:
    return to_hex(value) if isinstance(value, bytes) else str(value)[:200]
