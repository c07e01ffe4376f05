"""What scores are computed from, and what they are: two documents, the second of which follows from the first and the config.

The bundle has the groups of each round and their values and nothing else; a member rebuilds it from the chain and the rounds' metrics.
Whoever has it computes the statement to the last integer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from rexis.contribution.bands import bands_of
from rexis.contribution.effects import Score, ScoredRound, site_effects
from rexis.contribution.formula import FORMULA_DIGEST, UNIT
from rexis.encoding import canonical_json, sha256, to_hex
from rexis.errors import MalformedMessageError
from rexis.protocol.document_members import ascending_addresses, bytes32, integer, members_of
from rexis.protocol.federation_config import MAX_MEMBERS, MIN_MEMBERS, FederationConfig
from rexis.protocol.plan_parts import MAX_BANDS, MAX_SCORED_ROUNDS, MIN_GROUP

VERSION = 1
# Scores lie around the values, which are at most a unit; this is far outside, and keeps integers small.
LARGEST = 10**12


@dataclass(frozen=True)
class RoundValues:
    """Groups whose sums were opened in a round that is final, and their values.

    Attributes:
        number: of the round, from 1.
        groups: checksum addresses of the members in each, ascending.
        values: in millionths, in the order of the groups.
    """

    number: int
    groups: tuple[tuple[str, ...], ...]
    values: tuple[int, ...]

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read a round of a bundle.

        Raises:
            MalformedMessageError: unknown or missing fields, or a value out of bounds. So do all `parse` here.
        """
        fields = members_of("scored round", value, "round groups")
        number = integer("round", fields["round"], 1, MAX_SCORED_ROUNDS)
        listed = fields["groups"]
        if not isinstance(listed, list) or not 2 <= len(listed) <= MAX_MEMBERS // MIN_GROUP:
            raise MalformedMessageError(f"round {number}: expected a list of 2 to {MAX_MEMBERS // MIN_GROUP} groups")
        groups = [members_of("group", group, "members value") for group in listed]
        members = tuple(ascending_addresses("members of a group", group["members"], MIN_GROUP, MAX_MEMBERS) for group in groups)
        placed = [member for group in members for member in group]
        if len(set(placed)) < len(placed):
            raise MalformedMessageError(f"round {number}: expected disjoint groups")
        return cls(number, members, tuple(integer("value", group["value"], -UNIT, UNIT) for group in groups))

    def document(self) -> dict[str, Any]:
        """What `parse` reads."""
        groups = [{"members": list(members), "value": value} for members, value in zip(self.groups, self.values, strict=True)]
        return {"round": self.number, "groups": groups}


@dataclass(frozen=True)
class ContributionBundle:
    """Everything that a federation's scores are computed from, beside its config.

    Attributes:
        federation: id on chain, 32 bytes.
        config: digest of the config, 32 bytes.
        rounds: that are final, ascending.
    """

    federation: bytes
    config: bytes
    rounds: tuple[RoundValues, ...]

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read a bundle that came from someone else."""
        fields = members_of("contribution bundle", value, "version federation config rounds")
        _check_version("contribution bundle", fields["version"])
        listed = fields["rounds"]
        if not isinstance(listed, list) or len(listed) > MAX_SCORED_ROUNDS:
            raise MalformedMessageError(f"contribution bundle: expected a list of at most {MAX_SCORED_ROUNDS} rounds")
        rounds = tuple(RoundValues.parse(each) for each in listed)
        if [each.number for each in rounds] != sorted({each.number for each in rounds}):
            raise MalformedMessageError("contribution bundle: expected rounds in ascending order, none twice")
        return cls(bytes32("federation", fields["federation"]), bytes32("config", fields["config"]), rounds)

    def document(self) -> dict[str, Any]:
        """What `parse` reads."""
        return {
            "version": VERSION,
            "federation": to_hex(self.federation),
            "config": to_hex(self.config),
            "rounds": [each.document() for each in self.rounds],
        }

    @property
    def digest(self) -> bytes:
        """SHA-256 of the canonical document, 32 bytes."""
        return sha256(canonical_json(self.document()))


@dataclass(frozen=True)
class MemberScore:
    """What a statement says of a member.

    Attributes:
        rounds: that it stood in a group in.
        score: with its interval, in millionths; None if it stood in none.
        band: from 0, which is paid nothing.
    """

    address: str
    rounds: int
    score: Score | None
    band: int

    def document(self) -> dict[str, Any]:
        """As it stands in a statement."""
        ends = {name: None if self.score is None else getattr(self.score, name) for name in ("score", "lower", "upper")}
        return {"address": self.address, "rounds": self.rounds, **ends, "band": self.band}


@dataclass(frozen=True)
class ContributionStatement:
    """Scores of a federation's members.

    Attributes:
        federation: id on chain, 32 bytes.
        bundle: digest of what it was computed from, 32 bytes.
        level: score of an average member, in millionths.
        freedom: residual degrees of freedom of the intervals.
        members: in the order of the roster.
    """

    federation: bytes
    bundle: bytes
    level: int
    freedom: int
    members: tuple[MemberScore, ...]

    @property
    def bands(self) -> tuple[int, ...]:
        """Of the members, in their order."""
        return tuple(member.band for member in self.members)

    @classmethod
    def of(cls, config: FederationConfig, bundle: ContributionBundle) -> Self:
        """Compute it.

        Raises:
            MalformedMessageError: a bundle of another config, or with groups that its federation can not have opened.
            BelowThresholdError: too few rounds to tell the members apart.
            ValueError: the config has no scores.
        """
        plan = config.scores
        if plan is None:
            raise ValueError("expected a federation with scores")
        if bundle.config != config.digest:
            raise MalformedMessageError(f"contribution bundle: expected one of config {to_hex(config.digest)}, got {to_hex(bundle.config)}")
        places = {address: place for place, address in enumerate(config.roster)}
        rounds = [_scored(config, each, places) for each in bundle.rounds]
        effects = site_effects(len(config.members), rounds, plan.confidence)
        bands = bands_of(effects, most=plan.bands, floor=plan.floor)
        stood = [sum(any(place in group for group in each.groups) for each in rounds) for place in range(len(config.members))]
        members = zip(config.roster, stood, effects.scores, bands, strict=True)
        return cls(bundle.federation, bundle.digest, effects.level, effects.freedom, tuple(MemberScore(*member) for member in members))

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read a statement that came from someone else; what it says is known to be right when `of` gives the same."""
        fields = members_of("contribution statement", value, "version federation bundle formula level freedom members")
        _check_version("contribution statement", fields["version"])
        if bytes32("formula", fields["formula"]) != FORMULA_DIGEST:
            raise MalformedMessageError(f"contribution statement: expected the formula {to_hex(FORMULA_DIGEST)}")
        listed = fields["members"]
        if not isinstance(listed, list):
            raise MalformedMessageError("contribution statement: expected a list of members")
        entries = [members_of("member", each, "address rounds score lower upper band") for each in listed]
        addresses = ascending_addresses("members", [entry["address"] for entry in entries], MIN_MEMBERS, MAX_MEMBERS)
        return cls(
            federation=bytes32("federation", fields["federation"]),
            bundle=bytes32("bundle", fields["bundle"]),
            level=integer("level", fields["level"], -UNIT, UNIT),
            freedom=integer("freedom", fields["freedom"], 1, MAX_SCORED_ROUNDS * MAX_MEMBERS),
            members=tuple(
                MemberScore(
                    address,
                    integer("rounds", entry["rounds"], 0, MAX_SCORED_ROUNDS),
                    _score(entry),
                    integer("band", entry["band"], 0, MAX_BANDS),
                )
                for address, entry in zip(addresses, entries, strict=True)
            ),
        )

    def document(self) -> dict[str, Any]:
        """What `parse` reads."""
        return {
            "version": VERSION,
            "federation": to_hex(self.federation),
            "bundle": to_hex(self.bundle),
            "formula": to_hex(FORMULA_DIGEST),
            "level": self.level,
            "freedom": self.freedom,
            "members": [member.document() for member in self.members],
        }

    @property
    def digest(self) -> bytes:
        """SHA-256 of the canonical document, 32 bytes."""
        return sha256(canonical_json(self.document()))


def _check_version(what: str, value: Any) -> None:
    if type(value) is not int or value != VERSION:
        raise MalformedMessageError(f"expected {what} version {VERSION}, got {str(value)[:40]}")


def _score(entry: Any) -> Score | None:
    names = ("score", "lower", "upper")
    if all(entry[name] is None for name in names):
        return None
    return Score(*(integer(name, entry[name], -LARGEST, LARGEST) for name in names))


def _scored(config: FederationConfig, each: RoundValues, places: dict[str, int]) -> ScoredRound:
    """A round by positions from 0.

    Raises:
        MalformedMessageError: a round after the last one, too many groups, or a group with a stranger or too few members.
    """
    groups: Sequence[Sequence[str]] = each.groups
    most = 0 if config.groups is None else config.groups.count
    least = max(MIN_GROUP, config.collusion_bound + 2)
    if each.number > config.rounds or len(groups) > most:
        raise MalformedMessageError(f"expected a round of {config.rounds} with at most {most} groups, got {each.number} with {len(groups)}")
    if any(len(group) < least or not set(group) <= places.keys() for group in groups):
        raise MalformedMessageError(f"round {each.number}: expected groups of at least {least} members of the federation")
    return ScoredRound(tuple(tuple(places[member] for member in group) for group in groups), each.values)
