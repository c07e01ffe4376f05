"""The manifest of one attempt of one round: canonical JSON whose SHA-256 stands on chain before anybody commits.

Everything in it follows from the federation's config but the model it starts from and its deadlines, so an agent recomputes it and
compares: an aggregator can choose when, never what.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from rexis.encoding import canonical_json, from_hex, sha256, to_hex
from rexis.errors import EncodingError, MalformedMessageError, UnexpectedMessageError
from rexis.protocol.federation_config import FederationConfig

VERSION = 1
# Tells an attempt that is over from one that is only slow, before it may be abandoned on chain.
GRACE_S = 5
# What an agent grants an aggregator beyond the config's stages: its messages travel, and blocks have to be mined.
SLACK_S = 600
MAX_SECONDS = (1 << 48) - 1


@dataclass(frozen=True)
class Deadlines:
    """Last seconds (Unix time) of the stages keys, shares, masked and unmask, ascending. Vectors count only with a commitment.

    Without masks the stages keys and shares do not take place: both end when the attempt is opened, and `unmask` is when the survivors have
    to be fixed by.
    """

    keys: int
    shares: int
    masked: int
    unmask: int

    @classmethod
    def after(cls, opened_at: int, stage_s: int, *, masked: bool = True) -> Self:
        """Deadlines of an attempt that opens at `opened_at`, each stage that takes place as long as the config says."""
        return cls(*(opened_at + count * stage_s for count in ((1, 2, 3, 4) if masked else (0, 0, 1, 2))))

    @property
    def abandon(self) -> int:
        """Last second before the round may be abandoned on chain."""
        return self.unmask + GRACE_S


@dataclass(frozen=True)
class Manifest:
    """One attempt of one round.

    Attributes:
        federation: id, 32 bytes.
        round, attempt: from 1.
        config: digest of the federation's config, 32 bytes.
        base_model: record of the model to start from; of a statistic, `FederationConfig.statistic_digest`. 32 bytes.
        roster: addresses in the order of positions.
        collusion_bound, threshold, min_survivors: as in the config.
        ring_bits, length: of the uploaded vector.
        clipping_norm: decimal string, None for a statistic.
        weight_cap, weight_band: None for a statistic.
        deadlines: of the stages.
    """

    federation: bytes
    round: int
    attempt: int
    config: bytes
    base_model: bytes
    roster: tuple[str, ...]
    collusion_bound: int
    threshold: int
    min_survivors: int
    ring_bits: int
    length: int
    clipping_norm: str | None
    weight_cap: int | None
    weight_band: int | None
    deadlines: Deadlines

    @classmethod
    def of(
        cls, config: FederationConfig, *, federation: bytes, round_number: int, attempt: int, base_model: bytes, deadlines: Deadlines
    ) -> Self:
        """The manifest that the config gives for this attempt."""
        plan = config.training
        return cls(
            federation=federation,
            round=round_number,
            attempt=attempt,
            config=config.digest,
            base_model=base_model,
            roster=config.roster,
            collusion_bound=config.collusion_bound,
            threshold=config.threshold,
            min_survivors=config.min_survivors,
            ring_bits=config.ring_bits,
            length=config.upload_length,
            clipping_norm=None if plan is None else str(plan.clipping_norm),
            weight_cap=None if plan is None else plan.weight_cap,
            weight_band=None if plan is None else plan.weight_band,
            deadlines=deadlines,
        )

    def check(self, config: FederationConfig, *, federation: bytes, base_model: bytes) -> None:
        """Compare with what the config gives for the federation's present model, and its deadlines with the config's stages.

        Raises:
            UnexpectedMessageError: it says something else; the message names the fields.
        """
        expected = Manifest.of(
            config,
            federation=federation,
            round_number=self.round,
            attempt=self.attempt,
            base_model=base_model,
            deadlines=self.deadlines,
        )
        mine, theirs = expected.document(), self.document()
        differing = [name for name in mine if mine[name] != theirs[name]]
        if differing:
            raise UnexpectedMessageError(
                f"the manifest of round {self.round} differs from the federation's config in {', '.join(differing)}"
            )
        if not 1 <= self.round <= config.rounds:
            raise UnexpectedMessageError(f"expected a round of 1 to {config.rounds}, got {self.round}")
        due = self.deadlines
        stages = [due.masked - due.shares, due.unmask - due.masked]
        if config.masked:
            stages.insert(0, due.shares - due.keys)
        elif due.keys != due.shares:
            raise UnexpectedMessageError(f"expected no stages of keys and shares without masks, got {due.shares - due.keys} s")
        if any(not config.stage_s <= seconds <= config.stage_s + SLACK_S for seconds in stages):
            raise UnexpectedMessageError(f"expected stages of {config.stage_s} s, got {stages}")

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read a manifest.

        Raises:
            MalformedMessageError: unknown, missing or ill-formed fields.
        """
        if not isinstance(value, Mapping) or set(value) != _FIELDS or type(value["version"]) is not int or value["version"] != VERSION:
            raise MalformedMessageError(f"manifest: expected version {VERSION} and exactly the fields {', '.join(sorted(_FIELDS))}")
        deadlines, roster = value["deadlines"], value["roster"]
        if not isinstance(deadlines, Mapping) or set(deadlines) != {"keys", "shares", "masked", "unmask"}:
            raise MalformedMessageError("manifest: expected the deadlines keys, shares, masked and unmask")
        if not isinstance(roster, list) or not all(isinstance(address, str) for address in roster):
            raise MalformedMessageError("manifest: expected a list of addresses as roster")
        numbers = {name: value[name] for name in _NUMBERS} | {f"deadline {name}": seconds for name, seconds in deadlines.items()}
        for name, number in numbers.items():
            if type(number) is not int or not 0 <= number <= MAX_SECONDS:
                raise MalformedMessageError(f"manifest: {name}: expected an integer from 0, got {str(number)[:40]}")
        for name in ("weight_cap", "weight_band"):
            if value[name] is not None and type(value[name]) is not int:
                raise MalformedMessageError(f"manifest: {name}: expected an integer or null")
        if not (value["clipping_norm"] is None or isinstance(value["clipping_norm"], str)):
            raise MalformedMessageError("manifest: clipping_norm: expected a decimal string or null")
        try:
            federation, config, base_model = (from_hex(value[name], 32) for name in ("federation", "config", "base_model"))
        except (EncodingError, TypeError, AttributeError) as error:
            raise MalformedMessageError(f"manifest: {error}") from error
        return cls(
            federation=federation,
            round=value["round"],
            attempt=value["attempt"],
            config=config,
            base_model=base_model,
            roster=tuple(roster),
            collusion_bound=value["collusion_bound"],
            threshold=value["threshold"],
            min_survivors=value["min_survivors"],
            ring_bits=value["ring_bits"],
            length=value["length"],
            clipping_norm=value["clipping_norm"],
            weight_cap=value["weight_cap"],
            weight_band=value["weight_band"],
            deadlines=Deadlines(**deadlines),
        )

    def document(self) -> dict[str, Any]:
        """What `parse` reads."""
        return {
            "version": VERSION,
            "federation": to_hex(self.federation),
            "round": self.round,
            "attempt": self.attempt,
            "config": to_hex(self.config),
            "base_model": to_hex(self.base_model),
            "roster": list(self.roster),
            "collusion_bound": self.collusion_bound,
            "threshold": self.threshold,
            "min_survivors": self.min_survivors,
            "ring_bits": self.ring_bits,
            "length": self.length,
            "clipping_norm": self.clipping_norm,
            "weight_cap": self.weight_cap,
            "weight_band": self.weight_band,
            "deadlines": {
                "keys": self.deadlines.keys,
                "shares": self.deadlines.shares,
                "masked": self.deadlines.masked,
                "unmask": self.deadlines.unmask,
            },
        }

    @property
    def digest(self) -> bytes:
        """SHA-256 of the canonical document (32 bytes): `manifestHash` on chain."""
        return sha256(canonical_json(self.document()))


_NUMBERS = ("round", "attempt", "collusion_bound", "threshold", "min_survivors", "ring_bits", "length")
_FIELDS = {*_NUMBERS, "version", "federation", "config", "base_model", "roster", "clipping_norm", "weight_cap", "weight_band", "deadlines"}
