"""The signer of this command's user, and connections that it is signed in on."""

import os
from pathlib import Path

import stamina.instrumentation

from rexis.chain.delegated_signer import DelegatedSigner
from rexis.chain.deployments import Deployment, load, read
from rexis.chain.signer import LocalSigner, Signer
from rexis.cli.home import Profile, home, passphrase, write_private
from rexis.client.connection import Connection, Timeouts
from rexis.client.marketplace import ChainInfo
from rexis.client.sign_in import SignInSession
from rexis.errors import ConfigurationError, KeyFileError, WrongChainError


def create_keystore(secret: str) -> tuple[Path, LocalSigner]:
    """Make a key and its keystore v3 file under REXIS_HOME, locked with `secret`."""
    signer = LocalSigner.generate()
    path = home() / "keys" / f"{signer.address}.json"
    write_private(path, signer.keystore(secret))
    return path, signer


def open_signer(profile: Profile) -> tuple[Signer, str]:
    """Who signs as the profile's account, by its own key or by one that it delegated to, and the passphrase that opened the key.

    Raises:
        KeyFileError: the file does not open, or holds another account's key.
    """
    secret = passphrase()
    key = LocalSigner.from_keystore(Path(profile.keystore), secret)
    expected = profile.agent or profile.address
    if key.address != expected:
        raise KeyFileError(f"{profile.keystore}: expected the key of {expected}, got that of {key.address}; run `rexis login`")
    return acting_for(key, profile.address), secret


def acting_for(key: LocalSigner, account: str) -> Signer:
    """The signer of an account whose own key this is, or which delegated to it."""
    return key if key.address == account else DelegatedSigner(account, key)


def require_own_key(signer: Signer, purpose: str) -> None:
    """Refuse what no delegation covers, before anything is begun.

    Raises:
        ConfigurationError: this machine holds a delegated key.
    """
    if isinstance(signer, DelegatedSigner):
        raise ConfigurationError(
            f"{purpose} takes the own key of {signer.address}: others check its signatures against that address alone, and this machine "
            f"holds the delegated key {signer.agent}"
        )


def connect(service: str, url: str, *, timeouts: Timeouts | None = None, attempts: int = 5) -> Connection:
    """A connection whose retries say nothing: they would be logged into the command's output."""
    stamina.instrumentation.set_on_retry_hooks([])
    return Connection(url, service=f"the {service}", timeouts=timeouts, attempts=attempts)


def signed_in(service: str, url: str, signer: Signer, chain_id: int) -> Connection:
    """A connection that signs in when it is first used."""
    connection = connect(service, url)
    connection.authorise = SignInSession(connection, signer, chain_id).token
    return connection


def trusted_deployment(chain_id: int) -> Deployment:
    """The deployment record of this side: the operator's that REXIS_DEPLOYMENT_FILE names, else the shipped one.

    Raises:
        ConfigurationError: there is none for this chain.
        WrongChainError: the operator's record is for another chain.
    """
    given = os.environ.get("REXIS_DEPLOYMENT_FILE")
    deployment = read(Path(given)) if given else load(chain_id)
    if deployment.chain_id != chain_id:
        raise WrongChainError(f"{given}: expected the record of chain {chain_id}, got that of chain {deployment.chain_id}")
    return deployment


def check_chain(told: ChainInfo, deployment: Deployment) -> None:
    """Check that a marketplace works with the contracts that this side trusts: calls are signed for these, and no others.

    Raises:
        WrongChainError: another chain, or other addresses.
    """
    trusted = {name: contract.address for name, contract in deployment.contracts.items()}
    wrong = [name for name, address in trusted.items() if told.contracts.get(name, address) != address]
    if told.chain_id != deployment.chain_id or wrong:
        named = f"chain {told.chain_id}" if told.chain_id != deployment.chain_id else ", ".join(wrong)
        raise WrongChainError(
            f"the marketplace names {named}, which differs from the deployment record of chain {deployment.chain_id} on this side: "
            "it is another platform's, or not honest; nothing was signed"
        )
