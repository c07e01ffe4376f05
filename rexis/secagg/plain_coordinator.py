"""The aggregator's side of an attempt without masks: it collects signed uploads and adds those of the survivors that the chain fixed.

The stages keys, shares and unmask do not take place. The aggregator sees every single update, which is what such a federation agreed on
(`protection` of its config); who counts, and that everything is signed by its owner, is decided as with masks.
"""

from collections.abc import Sequence

from rexis.encoding import to_hex
from rexis.errors import EquivocationError, UnexpectedMessageError
from rexis.protocol.secagg_messages import Envelope, Stage
from rexis.secagg.accumulator import MaskedSum
from rexis.secagg.coordinator import Coordinator, Phase
from rexis.secagg.masks import RingVector
from rexis.secagg.plain_survivors import PlainSurvivors, check_plain, read_plain
from rexis.secagg.survivors import FixedSurvivors
from rexis.secagg.terms import RoundTerms


class PlainCoordinator:
    """One attempt of one round without masks: masked (as the wire calls the uploads), survivors, and the sum.

    Args:
        terms: as every participant reads them from the chain.

    Raises:
        ValueError: terms of an attempt with masks.
    """

    def __init__(self, terms: RoundTerms) -> None:
        check_plain(terms)
        self.terms = terms
        self._phase = Phase.MASKED
        self._messages: dict[int, Envelope] = {}
        self._survivors: PlainSurvivors | None = None

    @property
    def phase(self) -> Phase:
        """What is waited for: uploads, survivors fixed on chain, the sum, or nothing."""
        return self._phase

    @property
    def survivors(self) -> PlainSurvivors:
        """Whose vectors are summed, from the moment the stage masked is closed.

        Raises:
            UnexpectedMessageError: not closed yet.
        """
        if self._survivors is None:
            raise UnexpectedMessageError(f"the stage {Stage.MASKED} is not closed")
        return self._survivors

    @property
    def awaited(self) -> tuple[str, ...]:
        """Addresses that could still send, in ascending order."""
        if self._phase is not Phase.MASKED:
            return ()
        return tuple(self.terms.addresses(set(range(1, len(self.terms.roster) + 1)) - self._messages.keys()))

    def receive(self, message: Envelope) -> None:
        """Take one message. The same message again, at any time, changes nothing.

        Raises:
            UnexpectedMessageError: of a stage that does not take place, too late, or from somebody who is not in the roster.
            SignatureError: not signed by its sender for this attempt.
            EquivocationError: its sender announced another vector before.
            MalformedMessageError: a vector of another length or ring.
        """
        position = self.terms.verified_position(message, Stage.MASKED)
        before = self._messages.get(position)
        if before is not None:
            if before.payload == message.payload:
                return
            raise EquivocationError(f"{message.sender} signed two different messages of the stage {message.stage}: the first one counts")
        if self._phase is not Phase.MASKED:
            raise UnexpectedMessageError(f"{message.sender}: the stage {message.stage} is closed, this attempt is in {self._phase}")
        read_plain(self.terms, message)
        self._messages[position] = message

    def close_masked(self) -> tuple[Envelope, ...]:
        """Fix the survivors, once for the attempt.

        Raises:
            BelowThresholdError: too few; wait for more, or abort.
            UnexpectedMessageError: it is closed.
        """
        self._require(Phase.MASKED)
        self._survivors = PlainSurvivors.freeze(self.terms, self._messages)
        self._phase = Phase.SURVIVORS
        return self.messages(Stage.MASKED)

    def close_survivors(self, *, fixed: FixedSurvivors) -> None:
        """Take in what the chain fixed for this attempt.

        Raises:
            EquivocationError: another set.
            UnexpectedMessageError: not the time for it.
        """
        self._require(Phase.SURVIVORS)
        if fixed != self.survivors.fixed:
            raise EquivocationError(f"the chain fixed other survivors than {to_hex(self.survivors.fixed.survivors)}: this attempt is lost")
        self._phase = Phase.UNMASK

    def masked_sums(self) -> tuple[MaskedSum, ...]:
        """One empty sum for the survivors' vectors: add each stored upload to it, then hand it to `unmask`."""
        digests = self.survivors.digests
        return (MaskedSum(self.terms, {self.terms.address(position): digest for position, digest in digests.items()}),)

    def unmask(self, masked_sums: Sequence[MaskedSum]) -> tuple[RingVector, ...]:
        """The sum of the survivors' vectors without their salts, u32 or u64; there is no mask on it.

        Raises:
            UnexpectedMessageError: the survivors are not fixed, or the sum is not complete.
        """
        self._require(Phase.UNMASK, Phase.FINISHED)
        (masked_sum,) = masked_sums
        total = masked_sum.take()
        self._phase = Phase.FINISHED
        return (total[: self.terms.length - self.terms.salt_entries],)

    def messages(self, stage: Stage) -> tuple[Envelope, ...]:
        """What counts of a closed stage, in order of position; nothing of a stage that does not take place.

        Raises:
            UnexpectedMessageError: it is still open.
        """
        if stage is not Stage.MASKED:
            return ()
        return tuple(self._messages[position] for position in sorted(self.survivors.positions))

    def _require(self, *phases: Phase) -> None:
        if self._phase not in phases:
            raise UnexpectedMessageError(f"expected an attempt in {' or '.join(phases)}, this one is in {self._phase}")


AnyCoordinator = Coordinator | PlainCoordinator
