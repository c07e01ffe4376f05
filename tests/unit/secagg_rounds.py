"""Whole rounds in one process: real participants, a real coordinator, and between them only bytes that a network could carry."""

import copy
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from eth_keys.constants import SECPK1_N
from eth_keys.datatypes import PrivateKey

from rexis.encoding import keccak256, to_hex
from rexis.errors import SignatureError
from rexis.protocol import typed_data
from rexis.protocol.secagg_messages import Envelope, Stage
from rexis.protocol.signatures import recover_address
from rexis.protocol.typed_data import TypedMessage
from rexis.secagg import Coordinator, Participant
from rexis.secagg.history import AttemptRecord
from rexis.secagg.masks import RingVector
from rexis.secagg.participant_state import Phase
from rexis.secagg.quantization import FixedPoint
from rexis.secagg.survivors import FixedSurvivors
from rexis.secagg.terms import RoundTerms
from rexis.secagg.thresholds import Thresholds, thresholds

T = TypeVar("T")

CHAIN_ID = 31337
REGISTRY = "0x00000000000000000000000000000000000000AA"
ROSTER_SIZE = 32

_KEYS = [PrivateKey(keccak256(b"institution %d" % number)) for number in range(ROSTER_SIZE)]
_PRIVATE_KEYS = {str(key.public_key.to_checksum_address()): key for key in _KEYS}
ROSTER = tuple(_PRIVATE_KEYS)
_SIGNERS: dict[tuple[bytes, bytes], str] = {}


def _sign(digest: bytes, address: str) -> bytes:
    # `sign_digest` without deriving the public key again, which is half of its time.
    signature = _PRIVATE_KEYS[address].sign_msg_hash(digest)
    return bytes(signature.to_bytes()[:64]) + bytes([27 + signature.v])


class Signer:
    """A test institution's key, which also notes whose signatures it makes."""

    def __init__(self, position: int) -> None:
        self.address = ROSTER[position - 1]

    def sign_typed_data(self, message: TypedMessage) -> bytes:
        digest = message.hash()
        signature = _sign(digest, self.address)
        _SIGNERS[digest, signature] = self.address
        return signature


@contextmanager
def noted_signatures() -> Iterator[None]:
    """Recover honest signatures from the note above, and all others for real.

    Recovery is a pure function and takes 10 ms without a native library: in one process that plays everybody, the same signature is checked
    by everybody. Forged and damaged ones are not in the note. `test_noted_signatures_are_what_recovery_gives` compares the two.
    """

    def recover(digest: bytes, signature: bytes) -> str:
        return _SIGNERS.get((digest, signature)) or recover_address(digest, signature)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typed_data, "recover_address", recover)
        yield


def make_terms(n: int, collusion_bound: int = 1, *, needed: Thresholds | None = None, **changes: Any) -> RoundTerms:
    """Terms of a federation of the first n institutions, with tiny vectors unless said otherwise."""
    given: dict[str, Any] = {
        "chain_id": CHAIN_ID,
        "registry": REGISTRY,
        "federation": keccak256(b"heart"),
        "round": 3,
        "attempt": 1,
        "manifest_hash": keccak256(b"manifest"),
        "base_model": keccak256(b"base model"),
        "roster": ROSTER[:n],
        "thresholds": needed or thresholds(n, collusion_bound),
        "length": 5,
    }
    return RoundTerms(**(given | changes))


def update_of(terms: RoundTerms, position: int) -> RingVector:
    """A site's quantised vector: negative and positive entries up to the bound."""
    encoding = FixedPoint(len(terms.roster), 1.0, terms.ring_bits)
    generator = np.random.default_rng(position)
    return encoding.encode_integers(generator.integers(-encoding.bound // 2, encoding.bound // 2, size=terms.length).astype(np.float64))


def plain_sum(terms: RoundTerms, positions: Collection[int]) -> RingVector:
    """What the survivors' vectors add up to."""
    total = np.zeros(terms.length, dtype=terms.dtype)
    for position in positions:
        total += update_of(terms, position)
    return total


def carried(messages: Sequence[Envelope]) -> list[Envelope]:
    """The same messages after a trip over the wire."""
    return [Envelope.parse(message.to_bytes()) for message in messages]


def chunked(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


class Simulation:
    """An attempt played stage by stage; each stage names who is present. If `killed`, all are restored before each stage."""

    def __init__(
        self,
        terms: RoundTerms,
        *,
        graph_seed: bytes = bytes(32),
        group_key: bytes | None = None,
        earlier: Mapping[int, Sequence[AttemptRecord]] | None = None,
        killed: bool = False,
    ) -> None:
        self.terms, self.graph_seed, self.group_key, self.killed = terms, graph_seed, group_key, killed
        self.everybody = range(1, len(terms.roster) + 1)
        self.participants = {
            i: Participant(terms, Signer(i), earlier=(earlier or {}).get(i, ()), group_key=group_key) for i in self.everybody
        }
        self.coordinator = Coordinator(terms)
        self.uploads: dict[str, bytes] = {}
        self.messages: dict[Stage, list[Envelope]] = {}

    def fork(self) -> "Simulation":
        """The same attempt, to be continued in another way."""
        return copy.deepcopy(self, {id(self.terms): self.terms} | {id(message): message for message in self._envelopes()})

    def _envelopes(self) -> Iterator[Envelope]:
        for messages in self.messages.values():
            yield from messages

    def restart(self) -> None:
        """Kill everybody and start them again from what they stored."""
        for i, participant in self.participants.items():
            self.participants[i] = Participant.restore(self.terms, Signer(i), participant.state(), group_key=self.group_key)
        self.coordinator = Coordinator.restore(self.terms, self.coordinator.state())

    def act(self, i: int, step: Callable[[Participant], T]) -> T:
        """One step of one institution."""
        return step(self.participants[i])

    def keys(self, present: Collection[int] | None = None) -> list[Envelope]:
        self._begin()
        self._receive(self.act(i, Participant.announce_keys) for i in self._present(present))
        return self._closed(Stage.KEYS, self.coordinator.close_keys(graph_seed=self.graph_seed))

    def shares(self, present: Collection[int] | None = None) -> list[Envelope]:
        self._begin()
        keys = self.messages[Stage.KEYS]
        self._receive(self.act(i, lambda one: one.share(keys, graph_seed=self.graph_seed)) for i in self._present(present))
        return self._closed(Stage.SHARES, self.coordinator.close_shares())

    def open(self, present: Iterable[int] | None = None) -> None:
        for i in self._present(present):
            self.act(i, lambda one: one.open_shares(self.messages[Stage.SHARES]))

    def upload(self, i: int) -> Envelope:
        """Mask, upload and announce one site's vector, once."""
        if self.participants[i].sent[-1].stage is Stage.MASKED:
            return self.participants[i].sent[-1]

        def mask(one: Participant) -> bytes:
            vector = update_of(self.terms, i)
            manifest = one.mask(vector)
            assert manifest.total_bytes == vector.nbytes
            return vector.tobytes()

        self.uploads[ROSTER[i - 1]] = self.act(i, mask)
        return self.act(i, lambda one: one.announce_masked(f"upload-{i}"))

    def masked(self, present: Collection[int] | None = None) -> list[Envelope]:
        self._begin()
        shared = {message.sender for message in self.messages[Stage.SHARES]}
        members = [i for i in self._present(None) if ROSTER[i - 1] in shared]
        self.open(i for i in members if self.participants[i].phase in (Phase.SHARES, Phase.OPENED))
        self._receive(self.upload(i) for i in (members if present is None else self._present(present)))
        return self._closed(Stage.MASKED, self.coordinator.close_masked())

    def survivors(self, present: Collection[int] | None = None) -> list[Envelope]:
        self._begin()
        masked = self.messages[Stage.MASKED]
        self._receive(self.act(i, lambda one: one.consent(masked)) for i in self._survivors(present))
        return self._closed(Stage.SURVIVORS, self.coordinator.close_survivors())

    def fix_on_chain(self) -> FixedSurvivors:
        """The chain's word instead of consents."""
        fixed = self.coordinator.survivors.fixed
        self.coordinator.close_survivors(fixed=fixed)
        return fixed

    def unmask(self, present: Collection[int] | None = None, fixed: FixedSurvivors | None = None) -> RingVector:
        self._begin()
        self._receive(self.act(i, lambda one: self._answer(one, fixed)) for i in self._survivors(present))
        return self.opened()

    def answer(self, i: int, fixed: FixedSurvivors | None) -> Envelope:
        """One institution's message of the stage unmask."""
        return self.act(i, lambda one: self._answer(one, fixed))

    def opened(self) -> RingVector:
        """What the aggregator computes from the stored uploads."""
        (total,) = self.opened_groups()
        return total

    def opened_groups(self) -> tuple[RingVector, ...]:
        """The same of each group."""
        masked_sums = self.coordinator.masked_sums()
        for masked_sum in masked_sums:
            for address in reversed(masked_sum.missing):
                masked_sum.add(address, chunked(self.uploads[address], 7))
        return self.coordinator.unmask(masked_sums)

    def run(self) -> RingVector:
        """All stages, everybody present."""
        self.keys()
        self.shares()
        self.masked()
        self.survivors()
        return self.unmask()

    def _answer(self, one: Participant, fixed: FixedSurvivors | None) -> Envelope:
        if fixed is None:
            return one.unmask(self.messages[Stage.SURVIVORS])
        return one.unmask_fixed(self.messages[Stage.MASKED], fixed)

    def _begin(self) -> None:
        if self.killed:
            self.restart()

    def _present(self, present: Iterable[int] | None) -> list[int]:
        return sorted(self.everybody if present is None else present)

    def _survivors(self, present: Collection[int] | None) -> list[int]:
        return sorted(self.coordinator.survivors.positions if present is None else present)

    def _receive(self, messages: Iterator[Envelope]) -> None:
        for message in carried(list(messages)):
            self.coordinator.receive(message)

    def _closed(self, stage: Stage, messages: Sequence[Envelope]) -> list[Envelope]:
        self.messages[stage] = carried(messages)
        return self.messages[stage]


def resigned(message: Envelope, signing: int, /, **payload: Any) -> Envelope:
    """A message with other contents, properly signed by the institution at a position, as a malicious one would."""
    signer = Signer(signing)
    unsigned = Envelope(message.stage, message.ctx, signer.address, dict(message.payload) | payload)
    return Envelope(
        unsigned.stage, unsigned.ctx, unsigned.sender, unsigned.payload, signer.sign_typed_data(unsigned.typed_data(CHAIN_ID, REGISTRY))
    )


def forged(message: Envelope) -> Envelope:
    """The message with one bit of its signature's s changed."""
    signature = bytearray(message.signature)
    signature[40] ^= 1
    return Envelope(message.stage, message.ctx, message.sender, message.payload, bytes(signature))


def randomised_signature(message: Envelope, signing: int) -> bytes:
    """Another valid signature over the same message, by OpenSSL with a random nonce."""
    address = Signer(signing).address
    key = ec.derive_private_key(int.from_bytes(_PRIVATE_KEYS[address].to_bytes(), "big"), ec.SECP256K1())
    digest = message.typed_data(CHAIN_ID, REGISTRY).hash()
    r, s = decode_dss_signature(key.sign(digest, ec.ECDSA(Prehashed(SHA256()))))
    low = min(s, SECPK1_N - s)
    candidates = [r.to_bytes(32, "big") + low.to_bytes(32, "big") + bytes([v]) for v in (27, 28)]
    return next(signature for signature in candidates if recover_address(digest, signature) == address)


def signer_of(message: Envelope) -> str:
    """Who really signed, by recovery."""
    digest = message.typed_data(CHAIN_ID, REGISTRY).hash()
    if (digest, message.signature) not in _SIGNERS:
        raise SignatureError(f"no institution of this process signed {to_hex(digest)}")
    return recover_address(digest, message.signature)
