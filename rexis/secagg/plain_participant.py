"""An institution's side of an attempt without masks: one vector, announced once, and the same one in every later attempt at the round.

Sending is giving: from the first byte that leaves, the aggregator may have the update. So the attempt counts for whoever asks whether an
update of this base model is out (`history.Outcome.SENT`), whatever becomes of the round.
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from rexis.encoding import canonical_json, from_hex, parse_canonical_json, to_hex
from rexis.errors import EncodingError, MalformedMessageError, UnexpectedMessageError
from rexis.protocol.secagg_messages import SALT_BYTES, Envelope, Stage
from rexis.protocol.uploads import UploadManifest
from rexis.secagg.blocks import UploadDigest, vector_digest
from rexis.secagg.history import AttemptRecord, Outcome, vector_bound_by
from rexis.secagg.key_agreement import RandomBytes
from rexis.secagg.masks import RingVector
from rexis.secagg.participant import Participant, TypedDataSigner
from rexis.secagg.plain_survivors import check_plain
from rexis.secagg.terms import RoundTerms

VERSION = 1
MAX_STATE_BYTES = 1 << 20


class PlainParticipant:
    """One institution in one attempt of one round without masks.

    Store `state()` before anything that a step made leaves. A step repeated with the same input gives the same.

    Args:
        terms: from the chain and the manifest.
        signer: of an address in the roster.
        earlier: records of this institution's earlier attempts, of this round and of every round on the same base model.
        random_bytes: the operating system's; another only for tests.

    Raises:
        ValueError: terms of an attempt with masks: nothing is ever sent in it without them.
        UnexpectedMessageError: the signer is not in the roster, or an earlier attempt forbids this one.
    """

    def __init__(
        self, terms: RoundTerms, signer: TypedDataSigner, *, earlier: Sequence[AttemptRecord], random_bytes: RandomBytes = os.urandom
    ) -> None:
        check_plain(terms)
        terms.position(signer.address)
        self.terms = terms
        self._signer = signer
        self._salt = random_bytes(SALT_BYTES)
        self._vector = vector_bound_by(terms, earlier)
        self._upload: bytes | None = None
        self._sent: Envelope | None = None

    @classmethod
    def restore(cls, terms: RoundTerms, signer: TypedDataSigner, state: bytes) -> "PlainParticipant":
        """The participant that stored `state()`.

        Raises:
            UnexpectedMessageError: the state of another attempt or signer.
            MalformedMessageError: no such state.
        """
        participant = cls(terms, signer, earlier=())
        try:
            value = parse_canonical_json(state, max_bytes=MAX_STATE_BYTES)
            if value["version"] != VERSION:
                raise MalformedMessageError(f"plain participant state: expected version {VERSION}, got {value['version']}")
            if (value["ctx"], value["signer"]) != (to_hex(terms.ctx), signer.address):
                raise UnexpectedMessageError(f"expected the state of {signer.address} in ctx {to_hex(terms.ctx)}, got another's")
            participant._salt = from_hex(value["salt"], SALT_BYTES)
            participant._vector, participant._upload = (
                None if value[name] is None else from_hex(value[name], 32) for name in ("vector", "upload")
            )
            participant._sent = None if value["sent"] is None else Envelope.parse(from_hex(value["sent"]))
        except (EncodingError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise MalformedMessageError(f"plain participant state: {error}") from error
        return participant

    @property
    def sent(self) -> tuple[Envelope, ...]:
        """The message made so far, if there is one: after a restart, send it again."""
        return () if self._sent is None else (self._sent,)

    def state(self) -> bytes:
        """Everything needed to go on after a crash; holds the salt until the attempt is over."""
        return canonical_json(
            {
                "version": VERSION,
                "ctx": to_hex(self.terms.ctx),
                "signer": self._signer.address,
                "salt": to_hex(self._salt),
                "vector": None if self._vector is None else to_hex(self._vector),
                "upload": None if self._upload is None else to_hex(self._upload),
                "sent": None if self._sent is None else to_hex(self._sent.to_bytes()),
            }
        )

    def record(self) -> AttemptRecord:
        """What later attempts must know of this one."""
        return AttemptRecord.of(self.terms, self._vector, Outcome.OPEN if self._upload is None else Outcome.SENT)

    def salted(self, vector: RingVector) -> tuple[RingVector, UploadManifest]:
        """This round's one vector as it is uploaded. Store `state()` before a byte of it leaves.

        Args:
            vector: u32 or u64 [length - salt].

        Returns:
            The vector with the salt behind it [length], and the part digests to upload it with.

        Raises:
            ValueError: another dtype or length.
            UnexpectedMessageError: another vector was fixed in this attempt, or before on this base model; nothing is changed.
        """
        terms = self.terms
        if vector.dtype != terms.dtype or vector.shape != (terms.length - terms.salt_entries,):
            raise ValueError(f"expected {terms.length - terms.salt_entries} entries of {terms.dtype}, got {vector.shape} of {vector.dtype}")
        plain = vector_digest(vector)
        if self._vector is not None and plain != self._vector:
            raise UnexpectedMessageError("another vector was fixed for this base model: send the first, or drop out")
        whole: RingVector = np.concatenate([vector, np.frombuffer(self._salt, dtype=terms.dtype)])
        digest = UploadDigest()
        digest.update(whole.data.cast("B"))
        manifest = digest.manifest()
        self._vector, self._upload = plain, manifest.digest
        return whole, manifest

    def announce_masked(self, upload: str) -> Envelope:
        """Stage masked: say which finished upload holds the vector.

        Raises:
            UnexpectedMessageError: there is no vector yet, or another upload was announced before.
        """
        if self._upload is None:
            raise UnexpectedMessageError("expected a vector before its upload is announced")
        payload: dict[str, Any] = {
            "upload": upload,
            "digest": to_hex(self._upload),
            "bits": self.terms.ring_bits,
            "length": self.terms.length,
        }
        if self._sent is not None:
            if self._sent.payload != payload:
                raise UnexpectedMessageError(f"upload {self._sent.payload['upload']} was announced, it cannot become {upload}")
            return self._sent
        unsigned = Envelope(Stage.MASKED, self.terms.ctx, self._signer.address, payload)
        signature = self._signer.sign_typed_data(unsigned.typed_data(self.terms.chain_id, self.terms.registry))
        self._sent = Envelope(Stage.MASKED, unsigned.ctx, unsigned.sender, payload, signature)
        return self._sent


AnyParticipant = Participant | PlainParticipant
