"""`rexis federation model` and `base`: the global model in each of its forms, and the encoder that a text model is trained on."""

from pathlib import Path
from typing import TYPE_CHECKING

from rexis.cli.aggregator import AggregatorSession, aggregator_session, federation_id, registry_of
from rexis.cli.home import journal_path, write_private
from rexis.cli.output import console, print_json
from rexis.client.aggregator import Federation
from rexis.encoding import to_hex
from rexis.errors import UnexpectedMessageError

if TYPE_CHECKING:
    from rexis.agent.federation.registry import Registry

FINISHED = "finished"


def download_model(
    federation: str, output: Path, *, own: bool, with_bias: bool, aggregator: str | None, chain: str | None, as_json: bool
) -> None:
    """Write the present global model to a file, with this institution's own tensors in it if asked for; a Cox model also as a linear layer
    with a bias, which can be keyed."""
    from rexis.agent.federation.final_rounds import FinalRounds
    from rexis.agent.federation.membership import fetch_model

    number = federation_id(federation)
    with aggregator_session(aggregator) as session:
        registry, found = registry_of(session, chain), session.client.federation(number)
        if found.config.group_pad:
            content, record = _computed_model(session, registry, found)
        else:
            content, record = fetch_model(registry, session.client, number, found.config)
        if found.state == FINISHED:
            # That it ended early is the aggregator's word until the losses on chain say the same.
            FinalRounds(registry, session.client).check_end(number, found.config, registry.federation(number).round - 1)
        if own:
            content = _own_model(session, registry, found, content, record)
        if found.config.protection == "ee":
            content = _opened_model(session, registry, found, content, record)
    if with_bias:
        content = _with_bias(found, content, record)
    write_private(output, content)
    if as_json:
        print_json({"federation": federation, "model": to_hex(record), "bytes": len(content), "output": str(output)})
    elif found.config.protection == "ee":
        console().print(f"The members' model is in {output}: what stands on chain is {to_hex(record)}, under their key.", soft_wrap=True)
    elif own:
        console().print(f"Model {to_hex(record)} with this institution's personal tensors is in {output}.", soft_wrap=True)
    else:
        console().print(f"Model {to_hex(record)}, as it stands on chain, is in {output}.", soft_wrap=True)


def show_base(folder: Path, *, as_json: bool) -> None:
    """Print what names an encoder in a plan: its digest and width."""
    from rexis.training.text_base import read_base

    base = read_base(folder)
    if as_json:
        print_json({"base": to_hex(base.digest), "hidden": base.config.hidden, "positions": base.config.positions})
        return
    console().print(
        f"base {to_hex(base.digest)}, hidden {base.config.hidden}, texts of up to {base.config.positions} tokens", soft_wrap=True
    )


def _with_bias(found: Federation, content: bytes, record: bytes) -> bytes:
    from rexis.agent.federation.linear_form import linear_form

    if found.config.training is None:
        raise UnexpectedMessageError("a statistic has no model: leave --with-bias out")
    return linear_form(found.config.training, content, record)


def _own_model(session: AggregatorSession, registry: "Registry", found: Federation, content: bytes, record: bytes) -> bytes:
    from rexis.agent.federation.local_rounds import LocalRounds
    from rexis.agent.federation.records import FederationRecords
    from rexis.agent.federation.site_policy import SitePolicy
    from rexis.agent.journal import Journal

    plan = found.config.training
    if plan is None or not plan.personal:
        raise UnexpectedMessageError("nothing of this federation's model stays at its members: leave --own out")
    with Journal.open(journal_path(session.signer.address), session.secret) as journal:
        rounds = LocalRounds(FederationRecords(journal), registry, session.client, session.signer.address, SitePolicy())
        return rounds.own_model(found.id, plan, content, record)


def _opened_model(session: AggregatorSession, registry: "Registry", found: Federation, content: bytes, record: bytes) -> bytes:
    from rexis.agent.federation.group_keys import GroupKeys
    from rexis.agent.federation.keyed_updates import opened_model
    from rexis.agent.journal import Journal

    assert found.config.training is not None
    with Journal.open(journal_path(session.signer.address), session.secret) as journal:
        # A founder who is no member has no agent that opens what was dealt to it.
        GroupKeys(journal, session.signer, registry, session.client.connection).agree(found.id, found.config)
        return opened_model(journal, found.id, found.config.training, content, record)


def _computed_model(session: AggregatorSession, registry: "Registry", found: Federation) -> tuple[bytes, bytes]:
    from rexis.agent.federation.padded_models import compute_model
    from rexis.agent.journal import Journal

    with Journal.open(journal_path(session.signer.address), session.secret) as journal:
        state = compute_model(journal, session.signer, registry, session.client, found.id, found.config)
    return state.model, state.record
