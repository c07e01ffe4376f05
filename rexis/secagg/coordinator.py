"""The aggregator's side of one attempt: it collects signed messages, closes each stage once, and opens the sums that were agreed on.

There is one sum, or one for each group of the roster. Messages of a group that lost too many are left out when a stage is closed.

It decides nothing that a participant does not check again. When to close a stage (everybody is there, or its deadline passed) is its
owner's business: there is no clock in here.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, TypeVar

from rexis.encoding import canonical_json, from_hex, parse_canonical_json, to_hex
from rexis.errors import (
    BelowThresholdError,
    EncodingError,
    EquivocationError,
    MalformedMessageError,
    UnexpectedMessageError,
    VerificationError,
)
from rexis.protocol.secagg_messages import Envelope, Stage
from rexis.secagg.accumulator import MaskedSum
from rexis.secagg.blocks import apply_masks
from rexis.secagg.masks import RingVector
from rexis.secagg.reconstruction import opened_masks
from rexis.secagg.survivors import FixedSurvivors, SurvivorSet, check_consent, read_masked
from rexis.secagg.terms import RoundTerms
from rexis.secagg.transcript import KeyDirectory, ShareDirectory, check_number, check_shares, read_keys

T = TypeVar("T")

VERSION = 1
# Five messages of each of 1024 participants in hexadecimal would be more; rosters that large need one store for each message.
MAX_STATE_BYTES = 256 * 1024 * 1024


class Phase(StrEnum):
    """What the aggregator waits for: messages of a stage, or nothing more."""

    KEYS = "keys"
    SHARES = "shares"
    MASKED = "masked"
    SURVIVORS = "survivors"
    UNMASK = "unmask"
    FINISHED = "finished"
    ABORTED = "aborted"


class Coordinator:
    """One attempt of one round.

    `state()` after every change is enough to be restored from. It holds no secret of its own: what it learns is in the messages.

    Args:
        terms: as every participant reads them from the chain.

    Raises:
        ValueError: terms of an attempt without masks.
    """

    def __init__(self, terms: RoundTerms) -> None:
        if not terms.masked:
            raise ValueError("expected terms of an attempt with masks, got one without: it has a PlainCoordinator")
        self.terms = terms
        self._phase = Phase.KEYS
        self._reason = ""
        self._messages: dict[Stage, dict[int, Envelope]] = {stage: {} for stage in Stage}
        self._keys: KeyDirectory | None = None
        self._shares: ShareDirectory | None = None
        self._survivors: SurvivorSet | None = None
        self._closings: dict[str, Any] = {}
        self._wrong_shares: frozenset[tuple[int, int]] = frozenset()
        self._opened: tuple[frozenset[int], ...] = ()

    @property
    def phase(self) -> Phase:
        """Which stage is open, or how the attempt ended."""
        return self._phase

    @property
    def reason(self) -> str:
        """Why the attempt was aborted, or ""."""
        return self._reason

    @property
    def survivors(self) -> SurvivorSet:
        """U3, from the moment the stage masked is closed.

        Raises:
            UnexpectedMessageError: not closed yet.
        """
        return self._closed(self._survivors, Stage.MASKED)

    @property
    def awaited(self) -> tuple[str, ...]:
        """Addresses that could still send a message of the open stage, in ascending order."""
        if self._phase in (Phase.FINISHED, Phase.ABORTED):
            return ()
        return tuple(self.terms.addresses(self._members() - self._messages[Stage(self._phase.value)].keys()))

    @property
    def wrong_shares(self) -> tuple[tuple[str, str], ...]:
        """(holder, dealer) of each share that did not fit its secret: one of the two lied, and both signed."""
        return tuple((self.terms.address(holder), self.terms.address(dealer)) for holder, dealer in sorted(self._wrong_shares))

    def receive(self, message: Envelope) -> None:
        """Take one message. The same message again, at any time, changes nothing.

        Raises:
            UnexpectedMessageError: too early, too late, or from somebody who is not (or no longer) part of the attempt.
            SignatureError: not signed by its sender for this attempt.
            EquivocationError: its sender signed something else before, or another survivor set than this one.
            MalformedMessageError: contents that this attempt does not admit.
        """
        stage, position = message.stage, self.terms.position(message.sender)
        before = self._messages[stage].get(position)
        if before == message:
            return
        self.terms.verified_position(message, stage)
        if before is not None:
            if before.payload == message.payload:
                return
            raise EquivocationError(f"{message.sender} signed two different messages of the stage {stage}: the first one counts")
        if self._phase.value != stage.value:
            raise UnexpectedMessageError(f"{message.sender}: the stage {stage} is not open, this attempt is in {self._phase}")
        self._check(position, message)
        self._messages[stage][position] = message

    def close_keys(self, *, graph_seed: bytes = bytes(32)) -> tuple[Envelope, ...]:
        """Fix U1.

        Args:
            graph_seed: hash of the block that opened the attempt, 32 bytes; for the complete graph, zero. Of groups, the draw's seed.

        Returns:
            What every participant gets for the next stage.

        Raises:
            BelowThresholdError: too few; wait for more, or abort.
            UnexpectedMessageError: the stage is not open.
        """
        self._require(Phase.KEYS)
        counted = self._whole_groups(Stage.KEYS, graph_seed)
        self._keys, self._messages[Stage.KEYS] = KeyDirectory.freeze(self.terms, counted, graph_seed), counted
        return self._close(Stage.KEYS, Phase.SHARES, to_hex(graph_seed))

    def close_shares(self) -> tuple[Envelope, ...]:
        """Fix U2; see `close_keys`."""
        self._require(Phase.SHARES)
        keys = self._closed(self._keys, Stage.KEYS)
        counted = self._whole_groups(Stage.SHARES, keys.graph_seed)
        self._shares, self._messages[Stage.SHARES] = ShareDirectory.freeze(keys, counted), counted
        return self._close(Stage.SHARES, Phase.MASKED)

    def close_masked(self) -> tuple[Envelope, ...]:
        """Fix U3, once for the attempt; see `close_keys`. The sums may be built from here on."""
        self._require(Phase.MASKED)
        shares = self._closed(self._shares, Stage.SHARES)
        counted = self._whole_groups(Stage.MASKED, shares.keys.graph_seed)
        self._survivors, self._messages[Stage.MASKED] = SurvivorSet.freeze(shares, counted), counted
        return self._close(Stage.MASKED, Phase.SURVIVORS)

    def close_survivors(self, *, fixed: FixedSurvivors | None = None) -> tuple[Envelope, ...]:
        """End the collection of consents; see `close_keys`.

        Args:
            fixed: what the chain fixed for this attempt, instead of t consents.

        Raises:
            EquivocationError: the chain fixed another set.
        """
        self._require(Phase.SURVIVORS)
        signed, needed = len(self._messages[Stage.SURVIVORS]), self.terms.thresholds.threshold
        if fixed is None and signed < needed:
            raise BelowThresholdError("participants who signed the survivor set", needed, signed)
        if fixed not in (None, self.survivors.fixed):
            raise EquivocationError(f"the chain fixed other survivors than {to_hex(self.survivors.fixed.survivors)}: this attempt is lost")
        argument = None if fixed is None else [to_hex(fixed.survivors), to_hex(fixed.masked)]
        return self._close(Stage.SURVIVORS, Phase.UNMASK, argument)

    def masked_sums(self) -> tuple[MaskedSum, ...]:
        """Empty sums for the survivors' vectors, one for each group that is opened, in order; one without groups.

        Add each stored upload to the sum that misses it, then hand them to `unmask`.
        """
        survivors = self.survivors
        parts = [sorted(group & survivors.positions) for group in survivors.groups]
        return tuple(MaskedSum(self.terms, {self.terms.address(each): survivors.digests[each] for each in part}) for part in parts)

    def unmask(self, masked_sums: Sequence[MaskedSum]) -> tuple[RingVector, ...]:
        """Open the sums of the survivors' vectors. After a restart it may be done again, with new sums.

        Args:
            masked_sums: what `masked_sums` gave, whole.

        Returns:
            [d] of each: the sums, under the group pad if there is one. Of several groups those whose secrets rebuild, see `opened`.

        Raises:
            BelowThresholdError: too few answers, or too few groups that can be opened; wait for more, or abort.
            InvalidShareError: without groups, a secret does not rebuild whatever answers are used; its dealer is named.
            UnexpectedMessageError: the stage is not open, or a sum is not complete.
        """
        self._require(Phase.UNMASK, Phase.FINISHED)
        seeds, self._wrong_shares = opened_masks(self.survivors, self._messages[Stage.SHARES], self._messages[Stage.UNMASK])
        found = list(zip(self.survivors.groups, masked_sums, seeds, strict=True))
        opened = tuple(group & self.survivors.positions for group, _, masks in found if masks is not None)
        together = frozenset[int]().union(*opened)
        check_number(self.terms, "survivors in groups that can be opened", len(together))
        self.survivors.shares.keys.check_groups(together)
        totals = []
        for _, masked_sum, masks in found:
            if masks is not None:
                totals.append(masked_sum.take())
                apply_masks(totals[-1], masks)
        self._opened, self._phase = opened, Phase.FINISHED
        return tuple(totals)

    @property
    def opened(self) -> tuple[frozenset[int], ...]:
        """Positions behind each of the sums that `unmask` gave last, in their order; empty before."""
        return self._opened

    def abort(self, reason: str) -> None:
        """End the attempt without a sum; its keys are burned.

        Raises:
            UnexpectedMessageError: it has ended already.
        """
        self._require(*(phase for phase in Phase if phase not in (Phase.FINISHED, Phase.ABORTED)))
        self._phase, self._reason = Phase.ABORTED, reason

    def messages(self, stage: Stage) -> tuple[Envelope, ...]:
        """What counts of a closed stage, in order of position.

        Raises:
            UnexpectedMessageError: it is still open.
        """
        if stage.value not in self._closings:
            raise UnexpectedMessageError(f"the stage {stage} is not closed")
        return tuple(self._messages[stage][position] for position in sorted(self._messages[stage]))

    def state(self) -> bytes:
        """Canonical JSON to be restored from."""
        return canonical_json(
            {
                "version": VERSION,
                "ctx": to_hex(self.terms.ctx),
                "parameters": to_hex(self.terms.parameters),
                "phase": self._phase.value,
                "reason": self._reason,
                "closings": self._closings,
                "messages": {
                    stage.value: [to_hex(found[at].to_bytes()) for at in sorted(found)] for stage, found in self._messages.items()
                },
            }
        )

    @classmethod
    def restore(cls, terms: RoundTerms, state: bytes) -> "Coordinator":
        """The coordinator that stored `state()`: every message is checked and every stage closed again.

        Raises:
            UnexpectedMessageError: the state of another attempt, or under other terms.
            MalformedMessageError: no such state.
        """
        try:
            value = parse_canonical_json(state, max_bytes=MAX_STATE_BYTES)
            if value["version"] != VERSION:
                raise MalformedMessageError(f"coordinator state: expected version {VERSION}, got {value['version']}")
            if (value["ctx"], value["parameters"]) != (to_hex(terms.ctx), to_hex(terms.parameters)):
                raise UnexpectedMessageError(f"coordinator state: expected one for ctx {to_hex(terms.ctx)} and its terms, got another's")
            coordinator = cls(terms)
            for stage in Stage:
                for message in value["messages"][stage.value]:
                    coordinator.receive(Envelope.parse(from_hex(message)))
                if stage.value in value["closings"]:
                    coordinator._close_again(stage, value["closings"][stage.value])
            coordinator._phase, coordinator._reason = Phase(value["phase"]), str(value["reason"])
        except (EncodingError, VerificationError, KeyError, TypeError, ValueError) as error:
            raise MalformedMessageError(f"coordinator state: {error}") from error
        return coordinator

    def _whole_groups(self, stage: Stage, seed: bytes) -> dict[int, Envelope]:
        found = self._messages[stage]
        return {position: found[position] for position in sorted(self.terms.whole(seed, found.keys()))}

    def _close_again(self, stage: Stage, argument: Any) -> None:
        if stage is Stage.KEYS:
            self.close_keys(graph_seed=from_hex(argument, 32))
        elif stage is Stage.SHARES:
            self.close_shares()
        elif stage is Stage.MASKED:
            self.close_masked()
        else:
            self.close_survivors(fixed=None if argument is None else FixedSurvivors(*(from_hex(digest, 32) for digest in argument)))

    def _close(self, stage: Stage, following: Phase, argument: Any = None) -> tuple[Envelope, ...]:
        self._closings[stage.value] = argument
        self._phase = following
        return self.messages(stage)

    def _check(self, position: int, message: Envelope) -> None:
        if message.stage is Stage.KEYS:
            keys = read_keys(position, message)
            for other in self._messages[Stage.KEYS].values():
                if {keys.mask, keys.encryption} & {from_hex(other.payload["mask"]), from_hex(other.payload["encryption"])}:
                    raise MalformedMessageError(f"{message.sender}: expected fresh keys, got a key that {other.sender} announced")
        elif message.stage is Stage.SHARES:
            check_shares(self._closed(self._keys, Stage.KEYS), position, message)
        elif message.stage is Stage.MASKED:
            read_masked(self._closed(self._shares, Stage.SHARES), position, message)
        elif message.stage is Stage.SURVIVORS:
            check_consent(self.survivors, position, message)
        else:
            self.survivors.check_answer(position, message)

    def _members(self) -> frozenset[int]:
        if self._phase is Phase.KEYS:
            return frozenset(range(1, len(self.terms.roster) + 1))
        if self._phase is Phase.SHARES:
            return frozenset(self._closed(self._keys, Stage.KEYS).keys)
        if self._phase is Phase.UNMASK:
            return self.survivors.answerers
        return self._closed(self._shares, Stage.SHARES).positions

    def _closed(self, frozen: T | None, stage: Stage) -> T:
        if frozen is None:
            raise UnexpectedMessageError(f"the stage {stage} is not closed")
        return frozen

    def _require(self, *phases: Phase) -> None:
        if self._phase not in phases:
            raise UnexpectedMessageError(f"expected an attempt in {' or '.join(phases)}, this one is in {self._phase}")
