"""The other aggregators that the operator named, each signed in to with this aggregator's key."""

from collections.abc import Mapping
from dataclasses import dataclass

from rexis.chain.signer import Signer
from rexis.client.aggregator import AggregatorClient
from rexis.client.approvals import ApprovalClient
from rexis.client.connection import Connection
from rexis.client.sign_in import SignInSession


@dataclass(frozen=True)
class Peer:
    """One of them: its checksum address, and what can be asked of it."""

    address: str
    aggregator: AggregatorClient
    approvals: ApprovalClient


def open_peers(urls: Mapping[str, str], signer: Signer, chain_id: int) -> tuple[Peer, ...]:
    """Peers by the operator's list of origins; nobody is called yet, and ourselves are left out."""
    return tuple(_peer(address, url, signer, chain_id) for address, url in urls.items() if address != signer.address)


def _peer(address: str, url: str, signer: Signer, chain_id: int) -> Peer:
    connection = Connection(url, service=f"the aggregator {address}", attempts=2)
    connection.authorise = SignInSession(connection, signer, chain_id).token
    return Peer(address, AggregatorClient(connection), ApprovalClient(connection))
