"""A session at the trainer for one command: the user's key, the deployment record that it signs for, and the connection."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rexis.chain.deployments import Deployment
from rexis.chain.signer import Signer
from rexis.cli.home import Profile, require_profile, service_url
from rexis.cli.identity import open_signer, signed_in, trusted_deployment
from rexis.client.trainer import TrainerClient


@dataclass(frozen=True)
class TrainerSession:
    """Who signs and for which contracts, the passphrase that opened the key, and the trainer."""

    profile: Profile
    signer: Signer
    secret: str = field(repr=False)
    deployment: Deployment
    trainer: TrainerClient


@contextmanager
def trainer_session(trainer: str | None) -> Iterator[TrainerSession]:
    """Open a session as the profile's account; `trainer` is the URL that was given on the command line.

    Raises:
        ConfigurationError: nobody logged in yet.
        KeyFileError: the key file does not open.
    """
    profile = require_profile()
    signer, secret = open_signer(profile)
    deployment = trusted_deployment(profile.chain_id)
    with signed_in("trainer", service_url("trainer", trainer, profile), signer, profile.chain_id) as connection:
        yield TrainerSession(profile, signer, secret, deployment, TrainerClient(connection))
