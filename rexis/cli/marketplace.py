"""A session at the marketplace for one command: the user's key, the deployment record that it signs for, and the connection."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rexis.chain.deployments import Deployment
from rexis.chain.signer import Signer
from rexis.cli.home import require_profile, service_url
from rexis.cli.identity import check_chain, open_signer, signed_in, trusted_deployment
from rexis.client.connection import Connection
from rexis.client.marketplace import MarketplaceClient
from rexis.client.relayed_calls import RelayClient, SignedCall
from rexis.encoding import to_hex


@dataclass(frozen=True)
class MarketplaceSession:
    """Who signs, for which contracts, and the connection that is signed in."""

    signer: Signer
    deployment: Deployment
    connection: Connection

    def send(self, signed: SignedCall, timeout_s: float) -> str:
        """Have a call sent and wait until it is on chain; returns the transaction's hash in hexadecimal.

        Raises:
            ServiceError: the marketplace does not relay it, or the contract would refuse it.
            ChainError: it failed.
            UnavailableError: it is not on chain in time; it goes on all the same.
        """
        relays = RelayClient(self.connection)
        relay = relays.wait_until_mined(relays.hand_in(signed).id, timeout_s=timeout_s)
        return to_hex(relay.transaction_hash or b"")


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
