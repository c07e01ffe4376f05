"""A session at an aggregator for one command: the user's key, the deployment record that it signs for, and the connection."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rexis.chain.deployments import Deployment
from rexis.chain.signer import Signer
from rexis.cli.home import require_profile, service_url
from rexis.cli.identity import open_signer, signed_in, trusted_deployment
from rexis.client.aggregator import AggregatorClient
from rexis.encoding import from_hex
from rexis.errors import EncodingError, MalformedMessageError

if TYPE_CHECKING:
    from rexis.agent.federation.registry import Registry


@dataclass(frozen=True)
class AggregatorSession:
    """Who signs, with which secret their files open, for which contracts, and the client that is signed in."""

    signer: Signer
    secret: str = field(repr=False)
    deployment: Deployment
    client: AggregatorClient


@contextmanager
def aggregator_session(aggregator: str | None) -> Iterator[AggregatorSession]:
    """Open a session as the profile's account; `aggregator` is the URL that was given on the command line.

    Raises:
        ConfigurationError: nobody logged in yet.
        KeyFileError: the key file does not open.
    """
    profile = require_profile()
    signer, secret = open_signer(profile)
    url = service_url("aggregator", aggregator, profile)
    with signed_in("aggregator", url, signer, profile.chain_id) as connection:
        yield AggregatorSession(signer, secret, trusted_deployment(profile.chain_id), AggregatorClient(connection))


def registry_of(session: AggregatorSession, chain: str | None) -> "Registry":
    """The chain's word on federations, from this side's node; `chain` is its URL if one was given."""
    from rexis.agent.federation.registry import Registry
    from rexis.chain.connection import Chain

    return Registry(Chain.connect(service_url("chain", chain, require_profile()), session.deployment))


def federation_id(text: str) -> bytes:
    """The id of a federation (32 bytes) as it was typed.

    Raises:
        MalformedMessageError: no 0x and 64 digits.
    """
    return digest_argument("federation", text)


def digest_argument(name: str, text: str) -> bytes:
    """32 bytes as they were typed; `name` says what was expected.

    Raises:
        MalformedMessageError: no 0x and 64 digits.
    """
    try:
        return from_hex(text.lower(), 32)
    except EncodingError as error:
        raise MalformedMessageError(f"{name}: {error}") from error
