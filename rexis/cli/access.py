"""`rexis access request`, `grant`, `decline`, `revoke` and `list`."""

import secrets
from collections.abc import Mapping
from itertools import islice
from typing import Any

from rich.text import Text

from rexis.cli.marketplace import marketplace_session
from rexis.cli.output import console, print_json
from rexis.cli.report import grid
from rexis.client.access import AccessClient, AccessRequest, sign_revocation
from rexis.client.connection import printable
from rexis.encoding import checksum_address, to_hex
from rexis.errors import ConfigurationError
from rexis.policy.conditions import permission, purpose_document

ROLES = ("consumer", "owner")


def request(
    dataset: int, purpose: str, declared: Mapping[str, Any], *, days: int, text: str, marketplace: str | None, as_json: bool
) -> None:
    """Make a request and print it."""
    use = permission(purpose)
    with marketplace_session(marketplace) as session:
        made = AccessClient(session.connection).request(
            dataset, {"use": use.name, **declared}, days, text=text, idempotency_key=secrets.token_hex(16)
        )
    _print(made, f"Requested: the owner {made.owner} decides", as_json)


def grant(request_id: str, *, ask: bool, timeout_s: float, marketplace: str | None, as_json: bool) -> None:
    """Show a request, sign its grant, and wait until the marketplace has it from the chain."""
    with marketplace_session(marketplace) as session:
        client = AccessClient(session.connection)
        asked = client.access_request(request_id)
        if asked.state == "granted":
            _print(asked, "Granted already, nothing was signed", as_json)
            return
        signed = client.sign_grant(asked, session.signer, session.deployment)
        if ask:
            import typer

            _print(asked, "Asked for", as_json=False)
            if not typer.confirm("Grant this?", default=False, err=True):
                raise typer.Abort
        session.send(signed, timeout_s)
        granted = client.wait_for(request_id, timeout_s=timeout_s)
    _print(granted, "Granted", as_json)


def decline(request_id: str, reason: str, *, marketplace: str | None, as_json: bool) -> None:
    """Turn a request down and print it."""
    with marketplace_session(marketplace) as session:
        declined = AccessClient(session.connection).decline(request_id, reason)
    _print(declined, "Declined", as_json)


def revoke(dataset: int, consumer: str, purpose: str, *, timeout_s: float, marketplace: str | None, as_json: bool) -> None:
    """End a grant and wait until that is on chain."""
    use, holder = permission(purpose), checksum_address(consumer)
    with marketplace_session(marketplace) as session:
        transaction = session.send(sign_revocation(dataset, holder, use, session.signer, session.deployment), timeout_s)
    if as_json:
        print_json({"dataset": dataset, "consumer": holder, "purpose": use.name, "state": "revoked", "transaction_hash": transaction})
    else:
        console().print(f"Revoked: {holder} has no access to data set {dataset} for {use.name} any more.", soft_wrap=True)


def list_requests(role: str, limit: int, *, marketplace: str | None, as_json: bool) -> None:
    """Print the newest requests of the caller's, or those about the caller's data sets."""
    check_role(role)
    with marketplace_session(marketplace) as session:
        found = list(islice(AccessClient(session.connection).requests(role), limit))
    if as_json:
        print_json([each.document() for each in found])
        return
    if not found:
        console().print("No requests.")
        return
    table = grid("request", "data set", "purpose", "days", "state", "consumer")
    for each in found:
        asked = each.conditions
        table.add_row(each.id, str(asked.dataset), asked.purpose.use.name, str(asked.days), Text(each.state), asked.consumer)
    console().print(table)


def check_role(role: str) -> None:
    """Refuse a role that no list has.

    Raises:
        ConfigurationError: with the roles that there are.
    """
    if role not in ROLES:
        raise ConfigurationError(f"--role: expected {' or '.join(ROLES)}, got {printable(role, 40)}")


def _print(request: AccessRequest, title: str, as_json: bool) -> None:
    if as_json:
        print_json(request.document())
        return
    asked = request.conditions
    told = purpose_document(asked.purpose)
    declared = [
        name if value is True else f"{name} {value}" for name, value in told.items() if value not in (None, False, []) and name != "use"
    ]
    table = grid("", "")
    table.show_header = False
    for name, value in (
        ("request", f"{request.id}  ({request.state})"),
        ("data set", str(asked.dataset)),
        ("consumer", asked.consumer),
        ("purpose", str(asked.purpose.use)),
        ("declared", ", ".join(declared)),
        ("term", f"{asked.days} days from the grant on"),
        ("in words", printable(asked.text)),
        ("conditions", to_hex(asked.digest())),
        ("reason", request.reason or ""),
    ):
        if value:
            table.add_row(Text(name, style="dim"), Text(value, overflow="fold"))
    console().print(Text(title, style="bold green"))
    console().print(table)
