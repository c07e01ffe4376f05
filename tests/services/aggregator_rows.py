"""A federation as the aggregator's background process leaves it, for tests that have no chain."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from sqlalchemy.orm import Session

from rexis.chain.deployments import load
from rexis.chain.signer import LocalSigner
from rexis.encoding import sha256, to_hex
from rexis.protocol.approvals import Approval
from rexis.protocol.equivocation import Equivocation
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.federation_rounds import Survivors
from rexis.protocol.group_keys import GroupKeyDealing, GroupKeyRecipient
from rexis.protocol.member_results import MemberResult
from rexis.protocol.secagg_messages import Envelope, Stage
from rexis.secagg.group_dealing import deal_group_key
from rexis.secagg.key_agreement import public_key
from services.aggregator import attempts, foundings, global_models
from services.aggregator.attempts import Phase
from services.aggregator.models import Attempt, Federation, GroupKeyRecipientRow, OnchainRound, OpenedSum, RoundMessage
from services.aggregator.registry_calls import Registry
from services.foundation.database import now
from services.foundation.objects import ObjectStore
from services.foundation.settings import LOCAL_CHAIN_ID
from services.foundation.uploads import Upload, UploadPart
from tests.services.federations_on_chain import SPEC, config_of


@dataclass(frozen=True)
class StandingFederation:
    """A federation that `owner` founded, belongs to and aggregates for: attempt 1 is in the stage shares, attempt 2 takes keys,
    attempt 3 waits for approvals of survivors of which the owner is one, and attempt 4 for members' results."""

    owner: LocalSigner

    @cached_property
    def config(self) -> FederationConfig:
        return config_of(self.members, self.owner, "standing", aggregators=[self.owner.address])

    @cached_property
    def members(self) -> list[LocalSigner]:
        """The owner and three others, in the order of their positions."""
        return sorted([self.owner, *(LocalSigner.generate() for _ in range(3))], key=lambda signer: signer.address.lower())

    @cached_property
    def _private(self) -> dict[str, X25519PrivateKey]:
        return {member.address: X25519PrivateKey.generate() for member in self.members}

    @cached_property
    def recipients(self) -> dict[str, GroupKeyRecipient]:
        """The public key of each member."""
        return {member.address: self.recipient(member, public_key(self._private[member.address])) for member in self.members}

    def recipient(self, by: LocalSigner, key: bytes) -> GroupKeyRecipient:
        """A public key, signed."""
        made = GroupKeyRecipient(bytes.fromhex(self.id[2:]), by.address, key)
        return made.signed(by.sign_typed_data(made.typed_data(self.registry.chain_id, self.registry.address)))

    def dealing(self, by: LocalSigner, among: Sequence[str] | None = None) -> GroupKeyDealing:
        """A new key dealt to all members, or to some, signed."""
        keys = {who: self.recipients[who].public_key for who in self.recipients if among is None or who in among}
        made = deal_group_key(bytes.fromhex(self.id[2:]), by.address, self._private[by.address], keys, bytes(32))
        return made.signed(by.sign_typed_data(made.typed_data(self.registry.chain_id, self.registry.address)))

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

    def approval(self, survivors: int = 1) -> Approval:
        """The owner's signature under some survivors of attempt 3."""
        statement = Survivors(bytes.fromhex(self.id[2:]), 1, 3, bytes([survivors]) * 32, bytes(32))
        typed = statement.typed_data(self.registry.chain_id, self.registry.address)
        return Approval(statement, self.owner.address, self.owner.sign_typed_data(typed))

    @cached_property
    def result(self) -> MemberResult:
        """What the owner states about attempt 4."""
        digests = [bytes([number]) * 32 for number in range(1, 6)]
        made = MemberResult(self.owner.address, bytes.fromhex(self.id[2:]), 1, 4, *digests)
        return made.signed(self.owner.sign_typed_data(made.typed_data(self.registry.chain_id, self.registry.address)))

    @cached_property
    def evidence(self) -> Equivocation:
        """That the owner signed two sets."""
        return Equivocation(self.approval(1), self.approval(2))

    def _add_survivor(self, session: Session, objects: ObjectStore) -> None:
        """Attempt 3, its row on chain, and the owner's masked vector."""
        attempt, upload, vector = self.attempt(3, Phase.FIXING), 32 * "e", b"vector"
        attempt.survivors = [self.owner.address]
        payload = {"upload": upload, "digest": to_hex(bytes(32)), "bits": 32, "length": 3}
        masked = Envelope(Stage.MASKED, bytes.fromhex(attempt.ctx[2:]), self.owner.address, payload, bytes(65))
        objects.put_new(f"uploads/{upload}/1", vector)
        chain = OnchainRound(federation_id=self.id, round=1, attempt=3, opened_transaction=to_hex(bytes(32)))
        chain.manifest_hash, chain.base_model = attempt.manifest_digest, attempt.base_model
        session.add_all([attempt, chain])
        session.add(
            Upload(id=upload, owner=self.owner.address, total_bytes=6, state="claimed", digest=bytes(32), expires_at=now(), swept=True)
        )
        session.flush()
        session.add(UploadPart(upload_id=upload, number=1, size=6, digest=sha256(vector), object_key=f"uploads/{upload}/1"))
        row = RoundMessage(federation_id=self.id, round=1, attempt=3, stage="masked", sender=self.owner.address)
        row.digest, row.body = to_hex(bytes(32)), masked.to_bytes()
        session.add(row)

    def add(self, session: Session, objects: ObjectStore) -> None:
        """Write it, finished so far that everything can be asked for."""
        tensors = {name: np.ones(shape, dtype=np.float32) for name, shape in SPEC.shapes.items()}
        model, state = global_models.written(tensors, SPEC), b"state"
        stored = foundings.found(session, self.config, self.id, model=model.record, intent_key="relay:none")
        stored.state, stored.result = "finished", b"{}"
        for member in stored.members:
            member.joined_at = now()
        key = global_models.keep(objects, self.id, model)
        global_models.record(session, self.id, 0, model, key)
        session.add(self.attempt(4, Phase.RESULTS))
        objects.put_new("opened/sum", b"sum")
        session.flush()
        session.add(OpenedSum(federation_id=self.id, round=1, attempt=4, object_key="opened/sum", size=3, digest=to_hex(sha256(b"sum"))))
        global_models.record(session, self.id, 1, model, global_models.keep(objects, self.id, model, state), state)
        session.add_all([self.attempt(1, Phase.SHARES), self.attempt(2, Phase.KEYS)])
        others = [each for each in self.recipients.values() if each.recipient != self.owner.address]
        session.add_all(GroupKeyRecipientRow(federation_id=self.id, recipient=each.recipient, document=each.document()) for each in others)
        self._add_survivor(session, objects)
