"""An institution's side of one attempt: it trusts its own chain node and the signatures of the others, never the aggregator.

Source: Bonawitz et al., CCS 2017 (ePrint 2017/281), figure 4, active-adversary variant.
"""

import os
from collections.abc import Sequence
from typing import Any, Protocol

from rexis.encoding import to_hex
from rexis.errors import BelowThresholdError, DigestMismatchError, EquivocationError, UnexpectedMessageError
from rexis.protocol.secagg_messages import Envelope, Stage
from rexis.protocol.typed_data import TypedMessage
from rexis.protocol.uploads import UploadManifest
from rexis.secagg.blocks import UploadDigest, masked_blocks, vector_digest
from rexis.secagg.dealing import deal, open_dealt
from rexis.secagg.group_pad import pad_seed
from rexis.secagg.history import AttemptRecord, Outcome, vector_bound_by
from rexis.secagg.key_agreement import KeyPairs, RandomBytes, pairwise_seed
from rexis.secagg.masks import SEED_SIZE, RingVector, Sign, pairwise_sign
from rexis.secagg.participant_state import ParticipantState, Phase
from rexis.secagg.survivors import FixedSurvivors, SurvivorSet, check_consent
from rexis.secagg.terms import RoundTerms
from rexis.secagg.transcript import KeyDirectory, ShareDirectory


class TypedDataSigner(Protocol):
    """The institution's Ethereum key, wherever it is kept."""

    @property
    def address(self) -> str:
        """Checksum address."""
        ...

    def sign_typed_data(self, message: TypedMessage) -> bytes:
        """EIP-712 signature of 65 bytes."""
        ...


class Participant:
    """One institution in one attempt of one round.

    Each step returns the message to send; store `state()` before it leaves. A step repeated with the same input returns the same message;
    another order, or another input, is refused and changes nothing.

    Args:
        terms: from the chain and the manifest.
        signer: of an address in the roster.
        earlier: records of this institution's earlier attempts, of this round and of every round on the same base model.
        group_key: 32 bytes known to the members only, if the federation uses the group pad.
        random_bytes: the operating system's; another only for test vectors.

    Raises:
        UnexpectedMessageError: the signer is not in the roster, or an earlier attempt forbids this one.
        ValueError: terms of an attempt without masks.
    """

    def __init__(
        self,
        terms: RoundTerms,
        signer: TypedDataSigner,
        *,
        earlier: Sequence[AttemptRecord],
        group_key: bytes | None = None,
        random_bytes: RandomBytes = os.urandom,
    ) -> None:
        if not terms.masked:
            raise ValueError("expected terms of an attempt with masks, got one without: it has a PlainParticipant")
        self.terms = terms
        self._signer = signer
        self._group_key = group_key
        self._random_bytes = random_bytes
        self._state = ParticipantState(terms, terms.position(signer.address), vector=vector_bound_by(terms, earlier))

    @classmethod
    def restore(
        cls,
        terms: RoundTerms,
        signer: TypedDataSigner,
        state: bytes,
        *,
        group_key: bytes | None = None,
        random_bytes: RandomBytes = os.urandom,
    ) -> "Participant":
        """The participant that stored `state()`.

        Raises:
            UnexpectedMessageError: the state of another attempt or signer.
            MalformedMessageError: no such state.
        """
        participant = cls(terms, signer, earlier=(), group_key=group_key, random_bytes=random_bytes)
        restored = ParticipantState.parse(terms, state)
        if restored.position != participant.position:
            raise UnexpectedMessageError(
                f"expected the state of {signer.address} at position {participant.position}, got that of {restored.position}"
            )
        participant._state = restored
        return participant

    @property
    def position(self) -> int:
        """Place in the roster, from 1."""
        return self._state.position

    @property
    def phase(self) -> Phase:
        """What was done last."""
        return self._state.phase

    @property
    def sent(self) -> tuple[Envelope, ...]:
        """The messages made so far, in order of stage: after a restart, send the last one again."""
        return tuple(self._state.sent[stage] for stage in Stage if stage in self._state.sent)

    @property
    def survivors(self) -> SurvivorSet:
        """U3 as this participant signed it, or answered for it.

        Raises:
            UnexpectedMessageError: it has done neither.
        """
        if self._state.survivors is None:
            raise UnexpectedMessageError("this participant has signed no survivor set, and answered for none")
        return self._state.survivors

    def state(self) -> bytes:
        """Everything needed to go on after a crash; holds secrets until the attempt is answered or given up."""
        return self._state.to_bytes()

    def record(self) -> AttemptRecord:
        """What later attempts must know of this one."""
        outcome = Outcome.DROPPED if self.phase is Phase.DROPPED else Outcome.OPEN
        if Stage.UNMASK in self._state.sent:
            outcome = Outcome.ANSWERED
        return AttemptRecord.of(self.terms, self._state.vector, outcome)

    def announce_keys(self) -> Envelope:
        """Stage keys: two fresh X25519 keys."""
        self._require(Phase.JOINED, Phase.KEYS)
        state = self._state
        if state.phase is Phase.KEYS:
            return state.sent[Stage.KEYS]
        pairs = KeyPairs.generate(self._random_bytes)
        public = pairs.public
        payload = {"position": state.position, "mask": to_hex(public.mask), "encryption": to_hex(public.encryption)}
        message = self._sign(Stage.KEYS, payload)
        state.pairs = pairs
        return self._advance(Phase.KEYS, message)

    def share(self, keys: Sequence[Envelope], *, graph_seed: bytes = bytes(32)) -> Envelope:
        """Stage shares: secret-share a self seed and the mask key among the neighbours.

        Args:
            keys: the stage's messages of everybody whose keys count.
            graph_seed: hash of the block that opened the attempt, 32 bytes from the participant's own node; for the complete graph, zero.

        Raises:
            BelowThresholdError: too few for a sum ever to be revealed.
            EquivocationError: two messages of one sender, or another set of keys than was shared to before.
            UnexpectedMessageError, SignatureError, MalformedMessageError: a message that does not belong here.
        """
        self._require(Phase.KEYS, Phase.SHARES)
        state = self._state
        directory = KeyDirectory.freeze(self.terms, self._collect(keys, Stage.KEYS), graph_seed)
        if state.keys is not None:
            if state.keys.record != directory.record:
                raise EquivocationError("shares were made for one set of keys, and the aggregator now shows another")
            return state.sent[Stage.SHARES]
        pairs = self._pairs()
        self_seed = self._random_bytes(SEED_SIZE)
        payload, kept = deal(directory, pairs, self_seed, state.position, self._random_bytes)
        message = self._sign(Stage.SHARES, payload)
        state.keys, state.self_seed, state.inbox = directory, self_seed, {state.position: kept}
        return self._advance(Phase.SHARES, message)

    def open_shares(self, shares: Sequence[Envelope]) -> None:
        """Decrypt what the neighbours shared; from here on this participant can help others, and mask.

        Raises:
            InvalidShareError: a ciphertext does not open; its `dealer` damaged it or was shown other keys. Drop out, and show the message.
            BelowThresholdError, EquivocationError, UnexpectedMessageError, SignatureError, MalformedMessageError: as for `share`.
        """
        self._require(Phase.SHARES, Phase.OPENED)
        state = self._state
        keys = self._keys()
        messages = self._collect(shares, Stage.SHARES)
        directory = ShareDirectory.freeze(keys, messages)
        if state.shares is not None:
            if state.shares.record != directory.record:
                raise EquivocationError("shares of one set of participants were opened, and the aggregator now shows another")
            return
        dealt = open_dealt(keys, self._pairs(), state.position, messages)
        state.shares, state.inbox = directory, state.inbox | dealt
        state.phase = Phase.OPENED

    def mask(self, vector: RingVector) -> UploadManifest:
        """Mask this round's one vector, in place; it may be a memory-mapped file. Store `state()` before a byte of it leaves.

        Repeated after a crash, it gives the same bytes from the same vector, and refuses any other.

        Args:
            vector: u16, u32 or u64 [d], little-endian; see `quantization`. Counts, losses and metrics are entries of it, never beside it.

        Returns:
            Part digests to upload it with.

        Raises:
            ValueError: another dtype or length.
            UnexpectedMessageError: another vector was masked under these keys, or before on this base model; nothing is changed.
            DigestMismatchError: the same vector under another group key; the buffer is cleared.
        """
        self._require(Phase.OPENED, Phase.MASKED)
        state = self._state
        if vector.dtype != self.terms.dtype or vector.shape != (self.terms.length,):
            raise ValueError(f"expected {self.terms.length} entries of {self.terms.dtype}, got {vector.shape} of {vector.dtype}")
        plain = vector_digest(vector)
        if state.vector is not None and plain != state.vector:
            raise UnexpectedMessageError(
                "another vector was fixed for this base model, and the difference of the two would be readable: send the first, or drop out"
            )
        digest = UploadDigest()
        for block in masked_blocks(vector, self._mask_seeds()):
            digest.update(block.data.cast("B"))
        manifest = digest.manifest()
        if state.masked is not None and manifest.digest != state.masked:
            vector[:] = 0
            raise DigestMismatchError("masked vector", state.masked, manifest.digest)
        state.vector, state.masked = plain, manifest.digest
        state.phase = Phase.MASKED
        return manifest

    def announce_masked(self, upload: str) -> Envelope:
        """Stage masked: say which finished upload holds the masked vector.

        Raises:
            UnexpectedMessageError: another upload was announced before.
        """
        self._require(Phase.MASKED)
        state = self._state
        assert state.masked is not None
        payload = {"upload": upload, "digest": to_hex(state.masked), "bits": self.terms.ring_bits, "length": self.terms.length}
        before = state.sent.get(Stage.MASKED)
        if before is not None:
            if before.payload != payload:
                raise UnexpectedMessageError(f"upload {before.payload['upload']} was announced, it cannot become {upload}")
            return before
        return self._advance(Phase.MASKED, self._sign(Stage.MASKED, payload))

    def consent(self, masked: Sequence[Envelope]) -> Envelope:
        """Stage survivors: sign the one set whose sum may be opened. Who did not finish its own upload may consent too.

        Args:
            masked: the stage's messages of all survivors.

        Raises:
            BelowThresholdError: a sum over so few could expose one of them.
            EquivocationError: another set was signed before, or two messages of one sender.
            UnexpectedMessageError, SignatureError, MalformedMessageError: a message that does not belong here.
        """
        self._require(Phase.OPENED, Phase.MASKED, Phase.SURVIVORS)
        state = self._state
        survivors = self._survivors(masked)
        if state.phase is Phase.SURVIVORS:
            return state.sent[Stage.SURVIVORS]
        message = self._sign(Stage.SURVIVORS, survivors.consent())
        state.survivors = survivors
        return self._advance(Phase.SURVIVORS, message)

    def unmask(self, consents: Sequence[Envelope]) -> Envelope:
        """Stage unmask, on the word of at least t participants who signed the very set that this one signed.

        Forgets the secrets of this attempt. After it, nothing is sent in any other attempt of the round.

        Raises:
            BelowThresholdError: fewer than t signed.
            EquivocationError: somebody signed another set, or saw other messages of an earlier stage.
            UnexpectedMessageError, SignatureError: a message that does not belong here.
        """
        self._require(Phase.SURVIVORS, Phase.UNMASK)
        survivors = self._state.survivors
        if survivors is None or Stage.SURVIVORS not in self._state.sent:
            raise UnexpectedMessageError("this participant answered for a set fixed on chain, not for signatures")
        messages = self._collect(consents, Stage.SURVIVORS)
        for position, message in messages.items():
            check_consent(survivors, position, message)
        signed, needed = messages.keys() | {self.position}, self.terms.thresholds.threshold
        if len(signed) < needed:
            raise BelowThresholdError("participants who signed the survivor set", needed, len(signed))
        return self._answer(survivors)

    def unmask_fixed(self, masked: Sequence[Envelope], fixed: FixedSurvivors) -> Envelope:
        """Stage unmask, on what the participant's own chain node says was fixed for this attempt.

        Args:
            masked: the stage's messages of all survivors.
            fixed: read from the chain, where it is write-once.

        Raises:
            EquivocationError: the aggregator shows, or this participant signed, another set than stands on the chain.
            BelowThresholdError, UnexpectedMessageError, SignatureError, MalformedMessageError: as for `consent`.
        """
        self._require(Phase.OPENED, Phase.MASKED, Phase.SURVIVORS, Phase.UNMASK)
        survivors = self._survivors(masked)
        if survivors.fixed != fixed:
            raise EquivocationError(
                f"the chain fixed survivors {to_hex(fixed.survivors)} with masked vectors {to_hex(fixed.masked)}, the aggregator shows "
                f"{to_hex(survivors.fixed.survivors)} with {to_hex(survivors.fixed.masked)}"
            )
        return self._answer(survivors)

    def drop_out(self) -> None:
        """Give this attempt up for good and forget its secrets; store `state()` and `record()`."""
        self._state.forget_secrets()
        self._state.phase = Phase.DROPPED

    def _answer(self, survivors: SurvivorSet) -> Envelope:
        state = self._state
        if state.phase is Phase.UNMASK:
            return state.sent[Stage.UNMASK]
        message = self._sign(Stage.UNMASK, survivors.answer(state.position, state.inbox))
        state.survivors = survivors
        state.forget_secrets()
        return self._advance(Phase.UNMASK, message)

    def _survivors(self, masked: Sequence[Envelope]) -> SurvivorSet:
        shares = self._state.shares
        assert shares is not None
        survivors = SurvivorSet.freeze(shares, self._collect(masked, Stage.MASKED))
        if self._state.survivors is not None and self._state.survivors.fixed != survivors.fixed:
            raise EquivocationError(
                f"survivors {to_hex(self._state.survivors.fixed.survivors)} were agreed to, the aggregator now shows "
                f"{to_hex(survivors.fixed.survivors)}: one set for each attempt"
            )
        return survivors

    def _mask_seeds(self) -> list[tuple[bytes, Sign]]:
        state, keys, pairs, me = self._state, self._keys(), self._pairs(), self.position
        assert state.shares is not None
        assert state.self_seed is not None
        seeds: list[tuple[bytes, Sign]] = [(state.self_seed, 1)]
        for other in sorted(state.shares.masked_with(me)):
            seed = pairwise_seed(self.terms.ctx, pairs.mask_key, me, other, keys.keys[other].mask)
            seeds.append((seed, pairwise_sign(me, other)))
        if self._group_key is not None:
            seeds.append((pad_seed(self._group_key, self.terms.ctx, me), 1))
        return seeds

    def _collect(self, envelopes: Sequence[Envelope], stage: Stage) -> dict[int, Envelope]:
        own = self._state.sent.get(stage)
        messages = self.terms.collect(envelopes, stage, own)
        if stage in (Stage.KEYS, Stage.SHARES) and self.position not in messages:
            raise UnexpectedMessageError(f"the {stage} of this participant are not among those that count: it came too late, drop out")
        if own is None and self.position in messages:
            raise EquivocationError(f"the aggregator shows a message of the stage {stage} that this participant has no memory of: drop out")
        return messages

    def _require(self, *phases: Phase) -> None:
        if self.phase not in phases:
            raise UnexpectedMessageError(f"expected a participant in {' or '.join(phases)}, this one is in {self.phase}")

    def _pairs(self) -> KeyPairs:
        assert self._state.pairs is not None
        return self._state.pairs

    def _keys(self) -> KeyDirectory:
        assert self._state.keys is not None
        return self._state.keys

    def _sign(self, stage: Stage, payload: dict[str, Any]) -> Envelope:
        unsigned = Envelope(stage, self.terms.ctx, self.terms.address(self.position), payload)
        signature = self._signer.sign_typed_data(unsigned.typed_data(self.terms.chain_id, self.terms.registry))
        return Envelope(stage, unsigned.ctx, unsigned.sender, payload, signature)

    def _advance(self, phase: Phase, message: Envelope) -> Envelope:
        self._state.sent[message.stage] = message
        self._state.phase = phase
        return message
