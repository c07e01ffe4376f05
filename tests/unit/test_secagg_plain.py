"""Attempts without masks as pure state machines: the plain sum of whoever uploaded, and no way from one kind of attempt into the other."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rexis.errors import BelowThresholdError, EquivocationError, MalformedMessageError, UnexpectedMessageError
from rexis.protocol.secagg_messages import Envelope, Stage
from rexis.secagg import Coordinator, Participant
from rexis.secagg.history import AttemptRecord, Outcome
from rexis.secagg.plain_coordinator import PlainCoordinator
from rexis.secagg.plain_participant import PlainParticipant
from rexis.secagg.plain_survivors import PlainSurvivors
from rexis.secagg.survivors import FixedSurvivors
from rexis.secagg.terms import RoundTerms
from tests.unit.secagg_rounds import Signer, carried, chunked, make_terms, noted_signatures, plain_sum, update_of

UPLOAD = "0" * 31


def plain_terms(n: int = 5, **changes: Any) -> RoundTerms:
    """Terms without masks, for vectors of five entries with a salt of eight."""
    return make_terms(n, **({"length": 13, "masked": False} | changes))


def vector_of(terms: RoundTerms, position: int) -> Any:
    return update_of(replace(terms, length=5), position)


def uploads_of(terms: RoundTerms, positions: Any) -> tuple[list[Envelope], dict[str, bytes]]:
    """Messages and uploaded bytes of some participants."""
    messages, uploads = [], {}
    for position in positions:
        participant = PlainParticipant(terms, Signer(position), earlier=())
        whole, _ = participant.salted(vector_of(terms, position))
        again = PlainParticipant.restore(terms, Signer(position), participant.state())
        assert (again.salted(vector_of(terms, position))[0] == whole).all(), "the same bytes after a crash"
        messages.append(again.announce_masked(f"{UPLOAD}{position}"))
        assert PlainParticipant.restore(terms, Signer(position), again.state()).sent == (messages[-1],)
        uploads[terms.address(position)] = whole.tobytes()
    return carried(messages), uploads


@pytest.mark.parametrize("ring_bits", [32, 64])
@pytest.mark.parametrize("present", [(1, 2, 3, 4, 5), (5, 1, 3, 2)])
def test_the_sum_is_that_of_whoever_uploaded_and_has_no_salt(ring_bits: int, present: tuple[int, ...]) -> None:
    terms = plain_terms(ring_bits=ring_bits, length=5 + 256 // ring_bits)
    with noted_signatures():
        messages, uploads = uploads_of(terms, present)
        coordinator = PlainCoordinator(terms)
        for message in (*messages, *messages[::-1]):
            coordinator.receive(message)
        assert set(coordinator.awaited) == {terms.address(position) for position in range(1, 6) if position not in present}
        coordinator.close_masked()
        (total,) = coordinator.masked_sums()
        for address, content in uploads.items():
            total.add(address, chunked(content, 7))
        with pytest.raises(UnexpectedMessageError, match="expected an attempt in unmask"):
            coordinator.unmask([total])
        coordinator.close_survivors(fixed=coordinator.survivors.fixed)
        (opened,) = coordinator.unmask([total])
        assert (opened == plain_sum(replace(terms, length=5), present)).all()
    # The record that stands on chain says which vectors, and that they had no masks.
    swapped = PlainSurvivors(terms, {position: bytes([position]) * 32 for position in present})
    assert swapped.fixed.survivors == coordinator.survivors.fixed.survivors
    assert swapped.fixed.masked != coordinator.survivors.fixed.masked


def test_below_the_threshold_late_or_for_another_set_nothing_is_summed() -> None:
    terms = plain_terms()
    with noted_signatures():
        messages, _ = uploads_of(terms, (1, 2, 3, 4, 5))
        coordinator = PlainCoordinator(terms)
        for message in messages[: terms.thresholds.min_survivors - 1]:
            coordinator.receive(message)
        with pytest.raises(BelowThresholdError):
            coordinator.close_masked()
        coordinator.receive(messages[3])
        coordinator.close_masked()
        coordinator.receive(messages[0])
        with pytest.raises(UnexpectedMessageError, match="closed"):
            coordinator.receive(messages[4])
        with pytest.raises(EquivocationError, match="this attempt is lost"):
            coordinator.close_survivors(fixed=FixedSurvivors(bytes(32), coordinator.survivors.fixed.masked))
        with pytest.raises(UnexpectedMessageError, match="not a survivor"):
            coordinator.masked_sums()[0].add(terms.address(5), [bytes(52)])


def test_nothing_of_an_attempt_with_masks_is_ever_sent_without_them_and_the_other_way_round() -> None:
    masked, plain = make_terms(5), plain_terms()
    with pytest.raises(ValueError, match="expected terms of an attempt without masks"):
        PlainParticipant(masked, Signer(1), earlier=())
    with pytest.raises(ValueError, match="expected terms of an attempt with masks"):
        Participant(plain, Signer(1), earlier=())
    with pytest.raises(ValueError, match="expected terms of an attempt without masks"):
        PlainCoordinator(masked)
    with pytest.raises(ValueError, match="expected terms of an attempt with masks"):
        Coordinator(plain)
    started = Participant(masked, Signer(1), earlier=())
    with pytest.raises(MalformedMessageError):
        PlainParticipant.restore(plain, Signer(1), started.state())


def test_the_state_of_another_attempt_or_institution_is_refused() -> None:
    terms = plain_terms()
    state = PlainParticipant(terms, Signer(1), earlier=()).state()
    for other, signer in ((replace(terms, attempt=2), Signer(1)), (terms, Signer(2))):
        with pytest.raises((UnexpectedMessageError, MalformedMessageError)):
            PlainParticipant.restore(other, signer, state)
    for damaged in (b"", b"[]", b"{}", state[:-1], state.replace(b'"version":1', b'"version":2')):
        with pytest.raises(MalformedMessageError):
            PlainParticipant.restore(terms, Signer(1), damaged)


def test_a_vector_that_was_given_binds_every_later_attempt() -> None:
    terms = plain_terms()
    first = PlainParticipant(terms, Signer(1), earlier=())
    assert first.record().outcome is Outcome.OPEN
    with pytest.raises(UnexpectedMessageError, match="expected a vector"):
        first.announce_masked(f"{UPLOAD}1")
    whole, _ = first.salted(vector_of(terms, 1))
    with pytest.raises(UnexpectedMessageError, match="another vector was fixed"):
        first.salted(vector_of(terms, 2))
    first.announce_masked(f"{UPLOAD}1")
    with pytest.raises(UnexpectedMessageError, match="cannot become"):
        first.announce_masked(f"{UPLOAD}2")
    record = AttemptRecord.parse(first.record().to_bytes())
    assert record.outcome is Outcome.SENT
    # In the next attempt at this round: the same vector under another salt, and no other one.
    second = PlainParticipant(replace(terms, attempt=2), Signer(1), earlier=(record,))
    with pytest.raises(UnexpectedMessageError, match="another vector was fixed"):
        second.salted(vector_of(terms, 2))
    again, _ = second.salted(vector_of(terms, 1))
    assert (again[:5] == whole[:5]).all()
    assert not (again[5:] == whole[5:]).any()
    # What the aggregator has of this model must not be missing in, or added to, any other sum.
    for other in (replace(terms, round=4), make_terms(5, round=4), make_terms(5, federation=bytes(32))):
        kind = Participant if other.masked else PlainParticipant
        with pytest.raises(UnexpectedMessageError, match="never twice"):
            kind(other, Signer(1), earlier=(record,))


@pytest.mark.parametrize("changes", [{"length": 12}, {"length": 14}, {"bits": 64}])
def test_a_vector_of_another_form_is_refused(changes: dict[str, int]) -> None:
    terms = plain_terms()
    (message,), _ = uploads_of(terms, (1,))
    payload = {**message.payload, **changes}
    unsigned = Envelope(Stage.MASKED, terms.ctx, message.sender, payload)
    signature = Signer(1).sign_typed_data(unsigned.typed_data(terms.chain_id, terms.registry))
    with pytest.raises(MalformedMessageError, match="expected 13 entries of 32 bits"):
        PlainCoordinator(terms).receive(Envelope(Stage.MASKED, terms.ctx, message.sender, payload, signature))
    for wrong in (np.zeros(4, "<u4"), np.zeros(5, "<u8")):
        with pytest.raises(ValueError, match="expected 5 entries"):
            PlainParticipant(terms, Signer(1), earlier=()).salted(wrong)
