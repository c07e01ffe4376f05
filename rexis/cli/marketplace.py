"""A session at the marketplace for one command: the user's key, the deployment record that it signs for, and the connection."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rexis.chain.deployments import Deployment
from rexis.chain.signer import LocalSigner
from rexis.cli.home import require_profile, service_url
from rexis.cli.identity import check_chain, open_signer, signed_in, trusted_deployment
from rexis.client.connection import Connection
from rexis.client.marketplace import MarketplaceClient


@dataclass(frozen=True)
class MarketplaceSession:
    """Who signs, for which contracts, and the connection that is signed in."""

    signer: LocalSigner
    deployment: Deployment
    connection: Connection


@contextmanager
def marketplace_session(marketplace: str | None) -> Iterator[MarketplaceSession]:
    """Open a session as the profile's account; `marketplace` is the URL that was given on the command line.

    Raises:
        ConfigurationError: nobody logged in yet.
        KeyFileError: the key file does not open.
        WrongChainError: the marketplace works on other contracts than this side trusts.
    """
    profile = require_profile()
    signer, _ = open_signer(profile)
    deployment = trusted_deployment(profile.chain_id)
    url = service_url("marketplace", marketplace, profile)
    with signed_in("marketplace", url, signer, profile.chain_id) as connection:
        check_chain(MarketplaceClient(connection).chain(), deployment)
        yield MarketplaceSession(signer, deployment, connection)
