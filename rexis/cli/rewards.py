"""`rexis federation scores`, `rewards` and `claim`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rexis.agent.federation.registry import Registry
from rexis.agent.federation.rewards import (
    Publication,
    amounts,
    check_amount,
    check_share,
    claim_call,
    publication,
    publish_call,
)
from rexis.agent.federation.scores import checked_scores
from rexis.chain.reward_epochs import RewardEpoch
from rexis.cli.aggregator import AggregatorSession, aggregator_session, digest_argument, federation_id, registry_of
from rexis.cli.home import write_private
from rexis.cli.output import console, print_json
from rexis.cli.report import grid
from rexis.client.relayed_calls import RelayClient, SignedCall
from rexis.contribution.formula import UNIT
from rexis.encoding import to_hex
from rexis.errors import MalformedMessageError
from rexis.protocol.contributions import ContributionStatement
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.reward_shares import MAX_SHARE_BYTES, RewardShare


@dataclass(frozen=True)
class PublishOptions:
    """The options of `rexis federation rewards`; see its help."""

    epoch: str
    output: Path
    publish: bool
    uri: str | None
    timeout_s: int


def show_scores(federation: str, *, aggregator: str | None, chain: str | None, as_json: bool) -> None:
    """Compute scores from the chain, compare the aggregator's with them, and print them."""
    number = federation_id(federation)
    with aggregator_session(aggregator) as session:
        config = session.client.federation(number).config
        statement = checked_scores(registry_of(session, chain), session.client, number, config)
    if as_json:
        print_json({"digest": to_hex(statement.digest), "statement": statement.document()})
        return
    confidence = "" if config.scores is None else f", all intervals together with confidence {config.scores.confidence}"
    console().print(f"Scores {to_hex(statement.digest)}: computed here from what stands on chain{confidence}.", soft_wrap=True)
    table = grid("member", "rounds", "score", "interval", "band")
    for member in statement.members:
        score = member.score
        shown = ("", "") if score is None else (_units(score.score), f"{_units(score.lower)} to {_units(score.upper)}")
        table.add_row(member.address, str(member.rounds), *shown, str(member.band))
    console().print(table)


def publish_rewards(federation: str, options: PublishOptions, *, aggregator: str | None, chain: str | None, as_json: bool) -> None:
    """Write the shares of a reward, one file for each payee, and publish their record if asked for. Safe to repeat."""
    number, epoch_id = federation_id(federation), digest_argument("reward", options.epoch)
    with aggregator_session(aggregator) as session:
        registry = registry_of(session, chain)
        config, statement = _scores(session, registry, number)
        epoch = RewardEpoch.read(registry.chain, epoch_id)
        made = publication(session.deployment, config, statement, epoch, _salts(options.output, epoch_id))
        # First of all, and durably: what is published and then forgotten can not be claimed by anybody.
        for share in made.shares:
            write_private(options.output / f"{share.share.account}.json", (json.dumps(share.document(), indent=2) + "\n").encode())
        uri = options.uri if options.uri is not None else f"urn:rexis:scores:{to_hex(statement.digest)}"
        call = publish_call(session.signer, session.deployment, epoch, made, uri) if options.publish else None
        transaction = None if call is None else _send(session, call, options.timeout_s)
    paid = amounts(config, statement, epoch)
    document = _publication_json(made, epoch, statement)
    if as_json:
        print_json({**document, "amounts": {account: str(amount) for account, amount in paid.items()}, "transaction_hash": transaction})
        return
    table = grid("member", "band", "amount")
    for member in statement.members:
        table.add_row(member.address, str(member.band), str(paid[member.address]))
    console().print(table)
    console().print(
        f"{made.total} of {epoch.amount}; record {to_hex(made.record)}; one file for each payee in {options.output}.", soft_wrap=True
    )
    if transaction is not None:
        console().print(f"Published in transaction {transaction}. Now hand each payee its file, and nobody else's.", soft_wrap=True)


def claim(file: Path, *, timeout_s: int, aggregator: str | None, chain: str | None, as_json: bool) -> None:
    """Check one's share against the publication and the scores, and claim it."""
    share = _read_share(file)
    with aggregator_session(aggregator) as session:
        registry = registry_of(session, chain)
        epoch = RewardEpoch.read(registry.chain, share.epoch)
        check_share(share, session.deployment, epoch)
        config, statement = _scores(session, registry, share.federation)
        check_amount(share, config, statement, epoch)
        transaction = _send(session, claim_call(session.signer, session.deployment, share), timeout_s)
    account, amount = share.share.account, str(share.share.amount)
    if as_json:
        print_json({"epoch": to_hex(share.epoch), "account": account, "amount": amount, "transaction_hash": transaction})
    else:
        console().print(f"{amount} credited to {account} in transaction {transaction}; it is fetched by `withdraw`.", soft_wrap=True)


def _scores(session: AggregatorSession, registry: Registry, number: bytes) -> tuple[FederationConfig, ContributionStatement]:
    config = session.client.federation(number).config
    return config, checked_scores(registry, session.client, number, config)


def _salts(folder: Path, epoch: bytes) -> dict[str, bytes]:
    """Salts of shares that were written before, by account; a share of another reward is not overwritten.

    Raises:
        MalformedMessageError: a file that is no share, or another reward's.
    """
    found = {}
    for file in sorted(folder.glob("0x*.json")):
        share = _read_share(file)
        if share.epoch != epoch:
            raise MalformedMessageError(f"{file}: expected a share of reward {to_hex(epoch)}, got one of {to_hex(share.epoch)}")
        found[share.share.account] = share.share.salt
    return found


def _read_share(file: Path) -> RewardShare:
    with file.open("rb") as stream:
        return RewardShare.parse(stream.read(MAX_SHARE_BYTES + 1))


def _send(session: AggregatorSession, call: SignedCall, timeout_s: int) -> str | None:
    relays = RelayClient(session.client.connection)
    relay = relays.wait_until_mined(relays.hand_in(call).id, timeout_s=timeout_s)
    return None if relay.transaction_hash is None else to_hex(relay.transaction_hash)


def _publication_json(made: Publication, epoch: RewardEpoch, statement: ContributionStatement) -> dict[str, Any]:
    return {
        "epoch": to_hex(epoch.id),
        "statement": to_hex(statement.digest),
        "record": to_hex(made.record),
        "shares": len(made.shares),
        "total": str(made.total),
        "amount": str(epoch.amount),
    }


def _units(millionths: int) -> str:
    return f"{millionths / UNIT:.3f}"
