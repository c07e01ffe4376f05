"""A federation as the aggregator's background process leaves it, for tests that have no chain."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from sqlalchemy.orm import Session

from rexis.chain.deployments import load
from rexis.chain.signer import LocalSigner
from rexis.encoding import to_hex
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.secagg_messages import Envelope, Stage
from services.aggregator import attempts, foundings, global_models
from services.aggregator.attempts import Phase
from services.aggregator.models import Attempt, Federation
from services.aggregator.registry_calls import Registry
from services.foundation.database import now
from services.foundation.objects import ObjectStore
from services.foundation.settings import LOCAL_CHAIN_ID
from tests.services.federations_on_chain import SPEC, config_of


@dataclass(frozen=True)
class StandingFederation:
    """A federation that `owner` founded and belongs to: attempt 1 is in the stage shares, attempt 2 takes keys."""

    owner: LocalSigner

    @cached_property
    def config(self) -> FederationConfig:
        others = [LocalSigner.generate() for _ in range(3)]
        return config_of(sorted([self.owner, *others], key=lambda signer: signer.address.lower()), self.owner, "standing")

    @property
    def registry(self) -> Registry:
        return Registry.of(load(LOCAL_CHAIN_ID))

    @property
    def id(self) -> str:
        return to_hex(self.config.id(self.registry.chain_id, self.registry.address))

    @cached_property
    def federation(self) -> Federation:
        return Federation(id=self.id, config=self.config.document(), model=to_hex(bytes(32)))

    def attempt(self, number: int, phase: Phase) -> Attempt:
        attempt = Attempt(federation_id=self.id, round=1, number=number, opened_at=now())
        attempts.enter(attempt, phase)
        attempt.manifest, attempt.manifest_digest, attempt.base_model = {}, to_hex(bytes([number]) * 32), to_hex(bytes(32))
        attempt.ctx = to_hex(attempts.terms_of(self.registry, self.federation, attempt).ctx)
        return attempt

    @cached_property
    def message(self) -> bytes:
        """The owner's message of the stage keys of attempt 2."""
        position = self.config.roster.index(self.owner.address) + 1
        payload = {"position": position, "mask": to_hex(bytes([1]) * 32), "encryption": to_hex(bytes([2]) * 32)}
        ctx = bytes.fromhex(self.attempt(2, Phase.KEYS).ctx[2:])
        unsigned = Envelope(Stage.KEYS, ctx, self.owner.address, payload)
        signature = self.owner.sign_typed_data(unsigned.typed_data(self.registry.chain_id, self.registry.address))
        return Envelope(Stage.KEYS, ctx, self.owner.address, payload, signature).to_bytes()

    def add(self, session: Session, objects: ObjectStore) -> None:
        """Write it, finished so far that everything can be asked for."""
        tensors = {name: np.ones(shape, dtype=np.float32) for name, shape in SPEC.shapes.items()}
        model, state = global_models.written(tensors, SPEC), b"state"
        stored = foundings.found(session, self.config, self.id, model=model.record, intent_key="relay:none")
        stored.state, stored.result = "finished", b"{}"
        for member in stored.members:
            member.joined_at = now()
        global_models.record(session, self.id, 1, model, global_models.keep(objects, self.id, model, state), state)
        session.add_all([self.attempt(1, Phase.SHARES), self.attempt(2, Phase.KEYS)])
