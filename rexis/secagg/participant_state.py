"""What a participant must not lose between two messages, as canonical bytes: they hold secrets, store them sealed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

from rexis.encoding import canonical_json, from_hex, parse_canonical_json, to_hex
from rexis.errors import EncodingError, MalformedMessageError, RexisError, UnexpectedMessageError
from rexis.protocol.secagg_messages import Envelope, Stage
from rexis.secagg.key_agreement import KeyPairs, PublicKeys
from rexis.secagg.shamir import SHARE_SIZE
from rexis.secagg.survivors import SurvivorSet
from rexis.secagg.terms import RoundTerms
from rexis.secagg.transcript import KeyDirectory, ShareDirectory

T = TypeVar("T")

VERSION = 1
# The participant's own share of 1024 ciphertexts and everybody's keys stay far below.
MAX_STATE_BYTES = 8 * 1024 * 1024


class Phase(StrEnum):
    """What a participant has done last."""

    JOINED = "joined"
    KEYS = "keys"
    SHARES = "shares"
    OPENED = "opened"
    MASKED = "masked"
    SURVIVORS = "survivors"
    UNMASK = "unmask"
    DROPPED = "dropped"


@dataclass
class ParticipantState:
    """One attempt, from one participant's side.

    Attributes:
        terms: of the attempt; not part of the bytes, only their ctx.
        position: of this participant.
        phase: what was done last.
        pairs, self_seed: secrets of this attempt; gone once it is answered or given up.
        keys, shares, survivors: U1, U2 and U3 as this participant saw them.
        inbox: position → shares of (self seed, mask key), its own among them.
        vector: digest of the vector before masking, 32 bytes; set at the start if an earlier attempt fixed it.
        masked: digest of the masked vector, 32 bytes.
        sent: the one message of each stage, to be sent again as it is.
    """

    terms: RoundTerms
    position: int
    phase: Phase = Phase.JOINED
    pairs: KeyPairs | None = field(default=None, repr=False)
    self_seed: bytes | None = field(default=None, repr=False)
    keys: KeyDirectory | None = None
    shares: ShareDirectory | None = None
    inbox: dict[int, tuple[bytes, bytes]] = field(default_factory=dict, repr=False)
    vector: bytes | None = None
    masked: bytes | None = None
    survivors: SurvivorSet | None = None
    sent: dict[Stage, Envelope] = field(default_factory=dict)

    def forget_secrets(self) -> None:
        """Drop everything that could unmask anybody's vector."""
        self.pairs, self.self_seed, self.inbox = None, None, {}

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        return canonical_json(
            {
                "version": VERSION,
                "ctx": to_hex(self.terms.ctx),
                "parameters": to_hex(self.terms.parameters),
                "position": self.position,
                "phase": self.phase.value,
                "pairs": None if self.pairs is None else [to_hex(self.pairs.mask), to_hex(self.pairs.encryption)],
                "selfSeed": _hex_or_none(self.self_seed),
                "keys": None if self.keys is None else _keys_value(self.keys),
                "shares": None if self.shares is None else _by_position(self.shares.digests, to_hex),
                "inbox": _by_position(self.inbox, lambda pair: [to_hex(pair[0]), to_hex(pair[1])]),
                "vector": _hex_or_none(self.vector),
                "masked": _hex_or_none(self.masked),
                "survivors": None if self.survivors is None else _by_position(self.survivors.digests, to_hex),
                "sent": [to_hex(self.sent[stage].to_bytes()) for stage in Stage if stage in self.sent],
            }
        )

    @classmethod
    def parse(cls, terms: RoundTerms, data: bytes) -> "ParticipantState":
        """Read what `to_bytes` wrote under the same terms.

        Raises:
            UnexpectedMessageError: the state of another attempt, or under other terms.
            MalformedMessageError: no such state.
        """
        try:
            value = parse_canonical_json(data, max_bytes=MAX_STATE_BYTES)
            if value["version"] != VERSION:
                raise MalformedMessageError(f"participant state: expected version {VERSION}, got {value['version']}")
            if (value["ctx"], value["parameters"]) != (to_hex(terms.ctx), to_hex(terms.parameters)):
                raise UnexpectedMessageError(f"participant state: expected one for ctx {to_hex(terms.ctx)} and its terms, got another's")
            keys = None if value["keys"] is None else _parse_keys(terms, value["keys"])
            shares = None if keys is None or value["shares"] is None else ShareDirectory(keys, _parse_positions(value["shares"], _digest))
            survivors = None
            if shares is not None and value["survivors"] is not None:
                survivors = SurvivorSet(shares, _parse_positions(value["survivors"], _digest))
            sent = [Envelope.parse(from_hex(message)) for message in value["sent"]]
            return cls(
                terms=terms,
                position=int(value["position"]),
                phase=Phase(value["phase"]),
                pairs=None if value["pairs"] is None else KeyPairs(*(from_hex(scalar, 32) for scalar in value["pairs"])),
                self_seed=_bytes_or_none(value["selfSeed"]),
                keys=keys,
                shares=shares,
                inbox=_parse_positions(value["inbox"], _share_pair),
                vector=_bytes_or_none(value["vector"]),
                masked=_bytes_or_none(value["masked"]),
                survivors=survivors,
                sent={message.stage: message for message in sent},
            )
        except (MalformedMessageError, UnexpectedMessageError):
            raise
        except (EncodingError, RexisError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise MalformedMessageError(f"participant state: {error}") from error


def _keys_value(keys: KeyDirectory) -> dict[str, Any]:
    return {
        "graphSeed": to_hex(keys.graph_seed),
        "keys": _by_position(keys.keys, lambda pair: [to_hex(pair.mask), to_hex(pair.encryption)]),
    }


def _parse_keys(terms: RoundTerms, value: Any) -> KeyDirectory:
    keys = _parse_positions(value["keys"], lambda pair: PublicKeys(from_hex(pair[0], 32), from_hex(pair[1], 32)))
    return KeyDirectory(terms, keys, from_hex(value["graphSeed"], 32))


def _by_position(items: Mapping[int, T], write: Callable[[T], Any]) -> list[list[Any]]:
    return [[position, write(items[position])] for position in sorted(items)]


def _parse_positions(value: Any, read: Callable[[Any], T]) -> dict[int, T]:
    return {int(position): read(item) for position, item in value}


def _share_pair(value: Any) -> tuple[bytes, bytes]:
    self_share, pairwise_share = value
    return from_hex(self_share, SHARE_SIZE), from_hex(pairwise_share, SHARE_SIZE)


def _digest(value: Any) -> bytes:
    return from_hex(value, 32)


def _hex_or_none(value: bytes | None) -> str | None:
    return None if value is None else to_hex(value)


def _bytes_or_none(value: Any) -> bytes | None:
    return None if value is None else from_hex(value, 32)
