"""The marketplace's background process: `python -m services.marketplace.background`.

It relays signed calls and indexes the chain into the catalogue.
"""

from functools import cache

from sqlalchemy import Engine

from rexis.chain.connection import Chain
from rexis.chain.signer import LocalSigner, Signer
from rexis.errors import ConfigurationError
from services.foundation.assembly import connect_chain, run_service_background
from services.foundation.background import Job
from services.foundation.chain_index import ChainIndex
from services.foundation.outbox.relay import Relay
from services.foundation.outbox.transactions import GENERIC_POLICY, LOCAL_POLICY
from services.foundation.settings import LOCAL_CHAIN_ID
from services.marketplace.catalogue import CatalogueProjection
from services.marketplace.settings import MarketplaceSettings

PROJECTIONS = (CatalogueProjection(),)


def relayer(settings: MarketplaceSettings) -> Signer:
    """The account that pays for relayed calls.

    Raises:
        ConfigurationError: the settings name no key.
        KeyFileError: the keystore does not open.
    """
    if settings.relayer_keystore is not None and settings.relayer_passphrase is not None:
        return LocalSigner.from_keystore(settings.relayer_keystore, settings.relayer_passphrase.get_secret_value())
    if settings.relayer_key is None:
        raise ConfigurationError(
            "the relay needs a key: set REXIS_RELAYER_KEYSTORE and REXIS_RELAYER_PASSPHRASE, or locally REXIS_RELAYER_KEY"
        )
    return LocalSigner(bytes.fromhex(settings.relayer_key.get_secret_value()))


def jobs(settings: MarketplaceSettings, engine: Engine) -> list[Job]:
    """Relay and chain index over one connection, opened when it is first needed; raises as `relayer` does."""
    signer = relayer(settings)

    @cache  # keeps no exceptions: a chain that was dead is tried again in the next run
    def chain() -> Chain:
        return connect_chain(settings)

    @cache
    def relay() -> Relay:
        return Relay(engine, chain(), signer, LOCAL_POLICY if settings.chain_id == LOCAL_CHAIN_ID else GENERIC_POLICY)

    @cache
    def index() -> ChainIndex:
        return ChainIndex(engine, chain(), PROJECTIONS, chain().deployment.start_block)

    return [Job("relay", 1.0, lambda: relay().run_once()), Job("chain index", 1.0, lambda: index().run_once())]


if __name__ == "__main__":
    run_service_background(MarketplaceSettings, jobs)
