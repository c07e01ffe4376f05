"""`rexis login`."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from rexis.chain.delegations import SIGN_IN
from rexis.chain.signer import LocalSigner
from rexis.cli.home import STANDARD_PORTS, Profile, passphrase, read_profile, service_url, write_profile
from rexis.cli.identity import acting_for, check_chain, connect, create_keystore, trusted_deployment
from rexis.cli.output import console, print_json
from rexis.client.connection import origin
from rexis.client.marketplace import MarketplaceClient
from rexis.client.sign_in import SignInSession
from rexis.encoding import checksum_address
from rexis.errors import ConfigurationError, ServiceError


def login(keystore: Path | None, *, create: bool, institution: str | None, urls: Mapping[str, str], as_json: bool) -> None:
    """Choose or create the key, sign in once to prove that it works, and remember identity and URLs.

    Args:
        institution: the account that delegated to the key; None if the key is the account's own, or as it was before.
        urls: of services and of the chain's node (`chain`), as they were given.
    """
    known = read_profile()
    url = service_url("marketplace", urls.get("marketplace"), known)
    with connect("marketplace", url) as connection:
        chain = MarketplaceClient(connection).chain()
        check_chain(chain, trusted_deployment(chain.chain_id))
        path, key = _identity(keystore, create, institution, known)
        signer = acting_for(key, _account(key, keystore, institution, known))
        # Nothing is kept of the session: each command signs in for itself, so that no token lies on disk.
        try:
            SignInSession(connection, signer, chain.chain_id).token(renew=True)
        except ServiceError as error:
            if signer.address == key.address:
                raise
            raise ConfigurationError(
                f"{error}. On a machine with the own key of {signer.address}: `rexis key delegate --agent {key.address} --for {SIGN_IN},…`"
            ) from error
    given = {name: urls.get(name) or os.environ.get(f"REXIS_{name.upper()}_URL") for name in STANDARD_PORTS}
    # A node's URL may need its path; a service is known by its origin.
    chosen = {name: value if name == "chain" else origin(value) for name, value in given.items() if value}
    agent = key.address if key.address != signer.address else None
    write_profile(Profile(signer.address, str(path), chain.chain_id, {**(known.urls if known else {}), **chosen}, agent))
    if as_json:
        identity = {"address": signer.address, "agent": agent, "keystore": str(path), "chain_id": chain.chain_id}
        print_json({**identity, "marketplace": url, "created": create})
        return
    out = console()
    if create:
        out.print(f"New key in [bold]{path}[/]: back it up with its passphrase; nobody can restore either.", soft_wrap=True)
    out.print(f"Signed in at {url} (chain {chain.chain_id}) as [bold]{signer.address}[/].", soft_wrap=True)
    if agent is not None:
        out.print(
            f"This machine holds the key [bold]{agent}[/], and may do what was delegated to it: `rexis key show {agent}`.", soft_wrap=True
        )


def _account(key: LocalSigner, keystore: Path | None, institution: str | None, known: Profile | None) -> str:
    if institution is not None:
        return checksum_address(institution)
    # The key file that is remembered is still whose it was.
    return known.address if known is not None and keystore is None and known.agent == key.address else key.address


def _identity(keystore: Path | None, create: bool, institution: str | None, known: Profile | None) -> tuple[Path, LocalSigner]:
    if create and institution is not None:
        raise ConfigurationError("a new key has no delegation yet: make it with `rexis key create`, have it delegated, then log in")
    if create and keystore is not None:
        raise ConfigurationError("--create makes a new key file; give either it or --keystore")
    if create and known is not None:
        raise ConfigurationError(
            f"this machine signs in as {known.address} already: leave --create out; for a second identity, set REXIS_HOME to another folder"
        )
    path = keystore or (Path(known.keystore) if known is not None and not create else None)
    if path is not None:
        return path.absolute(), LocalSigner.from_keystore(path, passphrase())
    if not create:
        import typer

        if not sys.stdin.isatty():
            raise ConfigurationError("no identity yet: give a key file with --keystore, or make one with --create")
        if not typer.confirm("No identity yet. Create a new key?", default=True, err=True):
            raise ConfigurationError("an identity is needed: give a key file with --keystore")
    return create_keystore(passphrase(confirm=True))
