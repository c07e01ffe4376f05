"""`rexis key create`, `delegate`, `revoke`, `list` and `show`."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from rich.text import Text

from rexis.chain.connection import Chain
from rexis.chain.delegations import (
    CONTRACT,
    MAX_TERM,
    SIGN_IN,
    Delegation,
    agents_of,
    delegate_arguments,
    delegation_of,
    scope_names,
    scopes_of,
)
from rexis.chain.deployments import Deployment
from rexis.cli.home import passphrase, require_profile, service_url
from rexis.cli.identity import create_keystore, require_own_key, trusted_deployment
from rexis.cli.marketplace import marketplace_session
from rexis.cli.output import console, print_json
from rexis.cli.report import grid
from rexis.client.relayed_calls import sign_call
from rexis.encoding import checksum_address
from rexis.errors import ConfigurationError

# A scope is a word of storage: the new one written, and one of the delegation before cleared.
BASE_GAS, GAS_PER_SCOPE = 200_000, 40_000


def create(*, as_json: bool) -> None:
    """Make a key and print its address."""
    path, signer = create_keystore(passphrase(confirm=True))
    if as_json:
        print_json({"address": signer.address, "keystore": str(path)})
        return
    out = console()
    out.print(f"New key [bold]{signer.address}[/] in {path}.", soft_wrap=True)
    out.print(f"On a machine with the institution's own key: rexis key delegate --agent {signer.address} --for … --until …", soft_wrap=True)
    out.print(f"Then here: rexis login --institution ADDRESS --keystore {path}", soft_wrap=True)


def delegate(
    agent: str, powers: Sequence[str], until: str, *, ask: bool, timeout_s: float, marketplace: str | None, node: str | None, as_json: bool
) -> None:
    """Show a delegation, sign it, and wait until it is on chain."""
    holder, end = checksum_address(agent), _end_of(until)
    with marketplace_session(marketplace) as session:
        require_own_key(session.signer, "delegating")
        scopes = scopes_of(session.deployment, {*powers, SIGN_IN})
        # This side's node says which delegation is replaced: with another number the contract refuses.
        version = delegation_of(_chain(session.deployment, node), session.signer.address, holder).version
        agreed = Delegation(session.signer.address, holder, datetime.now(UTC), end, version + 1, scopes)
        signed = sign_call(
            session.signer,
            session.deployment,
            CONTRACT,
            "delegate",
            *delegate_arguments(holder, scopes, end, version),
            gas=BASE_GAS + GAS_PER_SCOPE * len(scopes),
        )
        if ask:
            import typer

            _print(session.deployment, agreed, "To be delegated")
            if not typer.confirm("Delegate this?", default=False, err=True):
                raise typer.Abort
        transaction = session.send(signed, timeout_s)
    if as_json:
        print_json({**_document(session.deployment, agreed), "transaction_hash": transaction})
    else:
        _print(session.deployment, agreed, "Delegated")


def revoke(agent: str, *, timeout_s: float, marketplace: str | None, as_json: bool) -> None:
    """End a delegation and wait until that is on chain."""
    holder = checksum_address(agent)
    with marketplace_session(marketplace) as session:
        require_own_key(session.signer, "revoking a delegation")
        transaction = session.send(sign_call(session.signer, session.deployment, CONTRACT, "revoke", holder), timeout_s)
    if as_json:
        print_json({"institution": session.signer.address, "agent": holder, "state": "revoked", "transaction_hash": transaction})
    else:
        console().print(f"Revoked: {holder} signs nothing for {session.signer.address} any more.", soft_wrap=True)


def list_keys(institution: str | None, *, node: str | None, as_json: bool) -> None:
    """Print all delegations of an institution that were not revoked."""
    account, deployment = _account(institution)
    chain = _chain(deployment, node)
    found = [delegation_of(chain, account, agent) for agent in agents_of(chain, account)]
    if as_json:
        print_json([_document(deployment, each) for each in found])
        return
    if not found:
        console().print(f"{account} delegated to no key.", soft_wrap=True)
        return
    table = grid("key", "state", "until", "may")
    for each in found:
        table.add_row(each.agent, each.state, _instant(each.until), Text(", ".join(scope_names(deployment, each.scopes)), overflow="fold"))
    console().print(table)


def show(agent: str, institution: str | None, *, node: str | None, as_json: bool) -> None:
    """Print one delegation."""
    account, deployment = _account(institution)
    found = delegation_of(_chain(deployment, node), account, checksum_address(agent))
    if as_json:
        print_json(_document(deployment, found))
    else:
        _print(deployment, found, "Delegation")


def _account(institution: str | None) -> tuple[str, Deployment]:
    profile = require_profile()
    return checksum_address(institution) if institution is not None else profile.address, trusted_deployment(profile.chain_id)


def _chain(deployment: Deployment, node: str | None) -> Chain:
    return Chain.connect(service_url("chain", node, require_profile()), deployment)


def _end_of(text: str) -> datetime:
    """The last second of a day."""
    try:
        end = datetime.combine(date.fromisoformat(text), time(23, 59, 59), UTC)
    except ValueError as error:
        raise ConfigurationError(f"--until: expected a day such as 2027-06-30, got {text[:40]!r}") from error
    now = datetime.now(UTC)
    last = now + MAX_TERM - timedelta(days=1)
    if not now.date() <= end.date() <= last.date():
        raise ConfigurationError(f"--until: expected a day from {now:%Y-%m-%d} to {last:%Y-%m-%d}, got {text}")
    return end


def _instant(at: datetime | None) -> str:
    return "" if at is None else f"{at:%Y-%m-%d %H:%M:%S} UTC"


def _document(deployment: Deployment, delegation: Delegation) -> dict[str, Any]:
    return {
        "institution": delegation.institution,
        "agent": delegation.agent,
        "state": delegation.state,
        "until": None if delegation.until is None else delegation.until.isoformat(),
        "may": scope_names(deployment, delegation.scopes),
        "version": delegation.version,
    }


def _print(deployment: Deployment, delegation: Delegation, title: str) -> None:
    table = grid("", "")
    table.show_header = False
    for name, value in (
        ("institution", delegation.institution),
        ("key", delegation.agent),
        ("state", delegation.state),
        ("until", _instant(delegation.until)),
        ("may", "\n".join(scope_names(deployment, delegation.scopes))),
    ):
        if value:
            table.add_row(Text(name, style="dim"), Text(value, overflow="fold"))
    console().print(Text(title, style="bold green"))
    console().print(table)
