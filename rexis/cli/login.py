"""`rexis login`."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from rexis.chain.signer import LocalSigner
from rexis.cli.home import STANDARD_PORTS, Profile, passphrase, read_profile, service_url, write_profile
from rexis.cli.identity import check_chain, connect, create_keystore, trusted_deployment
from rexis.cli.output import console, print_json
from rexis.client.connection import origin
from rexis.client.marketplace import MarketplaceClient
from rexis.client.sign_in import SignInSession
from rexis.errors import ConfigurationError


def login(keystore: Path | None, *, create: bool, urls: Mapping[str, str], as_json: bool) -> None:
    """Choose or create the key, sign in once to prove that it works, and remember identity and URLs.

    Args:
        urls: of services and of the chain's node (`chain`), as they were given.
    """
    known = read_profile()
    url = service_url("marketplace", urls.get("marketplace"), known)
    with connect("marketplace", url) as connection:
        chain = MarketplaceClient(connection).chain()
        check_chain(chain, trusted_deployment(chain.chain_id))
        path, signer = _identity(keystore, create, known)
        # Nothing is kept of the session: each command signs in for itself, so that no token lies on disk.
        SignInSession(connection, signer, chain.chain_id).token(renew=True)
    given = {name: urls.get(name) or os.environ.get(f"REXIS_{name.upper()}_URL") for name in STANDARD_PORTS}
    # A node's URL may need its path; a service is known by its origin.
    chosen = {name: value if name == "chain" else origin(value) for name, value in given.items() if value}
    write_profile(Profile(signer.address, str(path), chain.chain_id, {**(known.urls if known else {}), **chosen}))
    if as_json:
        print_json({"address": signer.address, "keystore": str(path), "chain_id": chain.chain_id, "marketplace": url, "created": create})
        return
    out = console()
    if create:
        out.print(f"New key in [bold]{path}[/]: back it up with its passphrase; nobody can restore either.", soft_wrap=True)
    out.print(f"Signed in at {url} (chain {chain.chain_id}) as [bold]{signer.address}[/].", soft_wrap=True)


def _identity(keystore: Path | None, create: bool, known: Profile | None) -> tuple[Path, LocalSigner]:
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
