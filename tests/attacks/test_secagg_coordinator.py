"""A malicious aggregator: it shows different things to different institutions, asks for too much, and replays. Nobody is exposed."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest

from rexis.encoding import keccak256, to_hex
from rexis.errors import (
    BelowThresholdError,
    EquivocationError,
    InvalidShareError,
    MalformedMessageError,
    RexisError,
    SignatureError,
    UnexpectedMessageError,
)
from rexis.protocol.secagg_messages import Envelope, Stage
from rexis.protocol.signatures import sign_digest
from rexis.secagg import Participant
from rexis.secagg.history import AttemptRecord, Outcome
from rexis.secagg.participant_state import Phase
from rexis.secagg.survivors import FixedSurvivors, SurvivorSet
from rexis.secagg.terms import RoundTerms
from rexis.secagg.transcript import KeyDirectory, ShareDirectory
from tests.unit.secagg_rounds import CHAIN_ID, REGISTRY, ROSTER, Signer, Simulation, make_terms, noted_signatures, resigned, update_of


@pytest.fixture(scope="module", autouse=True)
def _noted_signatures() -> Iterator[None]:
    with noted_signatures():
        yield


def masked_round(n: int, **changes: Any) -> Simulation:
    """A round in which everybody's vector is uploaded."""
    simulation = Simulation(make_terms(n, **changes))
    simulation.keys()
    simulation.shares()
    simulation.masked()
    return simulation


def answers_after(simulation: Simulation, views: dict[int, list[Envelope]], colluders: dict[int, list[list[Envelope]]]) -> list[Envelope]:
    """What honest institutions answer when each is shown its own survivors, and then every choice of consents that the aggregator has.

    `colluders` sign every view there is.
    """
    consents = {i: simulation.participants[i].consent(view) for i, view in views.items()}
    signed = list(consents.values())
    for i, shown in colluders.items():
        for view in shown:
            played = Participant.restore(simulation.terms, Signer(i), simulation.participants[i].state())
            signed.append(played.consent(view))
    answers = []
    for i, mine in consents.items():
        matching = [message for message in signed if message.payload == mine.payload]
        for chosen in (signed, matching):
            try:
                answers.append(simulation.participants[i].unmask(chosen))
            except (EquivocationError, BelowThresholdError):
                continue
    return answers


def test_split_views_of_the_survivors_open_at_most_one_sum() -> None:
    """Each of four honest institutions is shown one of two survivor sets; the fifth colludes and signs both."""
    full = masked_round(5)
    everybody = full.messages[Stage.MASKED]
    without = [message for message in everybody if message.sender != ROSTER[0]]
    for choice in product((0, 1), repeat=4):
        simulation = full.fork()
        views = {i: (everybody, without)[choice[i - 1]] for i in (1, 2, 3, 4)}
        answers = answers_after(simulation, views, {5: [everybody, without]})
        answered = {message.payload["survivors"] for message in answers}
        assert len(answered) <= 1
        # t = 4: three honest institutions and the colluder, or nobody.
        assert bool(answered) == (sum(choice) in (0, 1, 3, 4))


def test_a_set_by_consents_and_another_by_the_chain_never_both_open() -> None:
    """Some of four honest institutions are cut off and sign one set, the others read another from the chain; the fifth helps with both."""
    full = masked_round(5)
    everybody = full.messages[Stage.MASKED]
    without = [message for message in everybody if message.sender != ROSTER[0]]
    smaller = SurvivorSet.freeze(full.coordinator.survivors.shares, {i: everybody[i - 1] for i in (2, 3, 4, 5)})
    threshold = full.terms.thresholds.threshold
    for choice in product((False, True), repeat=4):
        simulation = full.fork()
        cut_off = {i: everybody for i in (1, 2, 3, 4) if choice[i - 1]}
        answers = answers_after(simulation, cut_off, {5: [everybody]})
        for i in {1, 2, 3, 4} - cut_off.keys():
            answers.append(simulation.participants[i].unmask_fixed(without, smaller.fixed))
        # With what the colluder has of both sets.
        helped = {to_hex(each.fixed.survivors): {ROSTER[4]} for each in (full.coordinator.survivors, smaller)}
        for message in answers:
            helped[message.payload["survivors"]].add(message.sender)
        assert sum(len(helpers) >= threshold for helpers in helped.values()) <= 1
        for victim in ROSTER[:4]:
            given = {
                kind: {m.sender for m in answers for entry in m.payload[kind] if entry["of"] == victim} for kind in ("self", "pairwise")
            }
            assert min(map(len, given.values())) + 1 < threshold


def test_nobody_gathers_enough_shares_of_both_secrets_of_anybody() -> None:
    """All that the aggregator and its colluders hold when honest institutions answer: one kind of share of each, from each."""
    simulation = masked_round(5)
    survivors = simulation.messages[Stage.MASKED][1:]
    answers = answers_after(simulation, dict.fromkeys((1, 2, 3, 4), survivors), {5: [survivors]})
    assert len(answers) == 8
    threshold = simulation.terms.thresholds.threshold
    for victim in ROSTER[:4]:
        # The colluder holds one share of both.
        held = {"self": {5}, "pairwise": {5}}
        for message in answers:
            for kind, holders in held.items():
                holders |= {simulation.terms.position(message.sender) for entry in message.payload[kind] if entry["of"] == victim}
        assert min(map(len, held.values())) < threshold <= max(map(len, held.values()))


def test_one_answer_for_each_attempt() -> None:
    simulation = masked_round(4)
    everybody = simulation.messages[Stage.MASKED]
    simulation.survivors()
    first = simulation.participants[1]
    answer = first.unmask(simulation.messages[Stage.SURVIVORS])
    stored = first.state()
    for participant in (first, Participant.restore(simulation.terms, Signer(1), stored)):
        with pytest.raises(EquivocationError, match="one set for each attempt"):
            participant.unmask_fixed(everybody[:3], simulation.coordinator.survivors.fixed)
        with pytest.raises(UnexpectedMessageError, match="expected a participant"):
            participant.consent(everybody[:3])
        assert participant.unmask(simulation.messages[Stage.SURVIVORS]) == answer
        assert participant.unmask_fixed(everybody, simulation.coordinator.survivors.fixed) == answer
        assert participant.state() == stored


def test_a_signed_set_cannot_be_replaced_by_another_even_with_the_chain_behind_it() -> None:
    simulation = masked_round(4)
    everybody = simulation.messages[Stage.MASKED]
    first = simulation.participants[1]
    first.consent(everybody)
    stored = first.state()
    smaller = SurvivorSet.freeze(simulation.coordinator.survivors.shares, {i: everybody[i - 1] for i in (1, 2, 3)})
    with pytest.raises(EquivocationError, match="one set for each attempt"):
        first.unmask_fixed(everybody[:3], smaller.fixed)
    with pytest.raises(EquivocationError):
        first.consent(everybody[:3])
    assert first.state() == stored


def test_the_chain_decides_against_the_aggregator() -> None:
    simulation = masked_round(4)
    everybody = simulation.messages[Stage.MASKED]
    fixed = simulation.coordinator.survivors.fixed
    participant = simulation.participants[2]
    before = participant.state()
    for masked, claimed in (
        (everybody[:3], fixed),
        (everybody, FixedSurvivors(fixed.survivors, bytes(32))),
        (everybody, FixedSurvivors(bytes(32), fixed.masked)),
    ):
        with pytest.raises(EquivocationError, match="the chain fixed"):
            participant.unmask_fixed(masked, claimed)
    assert participant.state() == before
    with pytest.raises(EquivocationError, match="the chain fixed"):
        simulation.coordinator.close_survivors(fixed=FixedSurvivors(bytes(32), fixed.masked))


def test_both_shares_of_one_site_make_no_message() -> None:
    simulation = masked_round(4)
    simulation.survivors()
    answer = simulation.participants[1].unmask(simulation.messages[Stage.SURVIVORS])
    both = dict(answer.payload) | {"pairwise": answer.payload["self"][:1]}
    with pytest.raises(MalformedMessageError, match="got both for"):
        Envelope(Stage.UNMASK, answer.ctx, answer.sender, both, answer.signature)


def test_keys_in_another_name_are_refused() -> None:
    """The aggregator puts its own keys in place of a site's, or invents a site."""
    simulation = Simulation(make_terms(4))
    keys = simulation.keys()
    stranger = bytes(31) + b"\x05"
    own = {"mask": keys[0].payload["mask"], "encryption": keys[0].payload["encryption"]}
    swapped = Envelope(Stage.KEYS, keys[2].ctx, keys[2].sender, dict(keys[2].payload) | own)
    swapped = replace(swapped, signature=sign_digest(swapped.typed_data(CHAIN_ID, REGISTRY).hash(), stranger))
    first = simulation.participants[1]
    before = first.state()
    with pytest.raises(SignatureError, match="expected a signature by"):
        first.share([*keys[:2], swapped, keys[3]])
    with pytest.raises(UnexpectedMessageError, match="not in the roster"):
        first.share([*keys, resigned(keys[2], 9, position=4)])
    with pytest.raises(EquivocationError, match="two different messages"):
        # Its own name, with keys it never made: the institution's key would have to be stolen for this.
        first.share([resigned(keys[0], 1, mask=to_hex(keccak256(b"x")[:31] + b"\0")), *keys[1:]])
    with pytest.raises(UnexpectedMessageError, match="came too late"):
        first.share(keys[1:])
    assert first.state() == before


def test_split_views_of_the_keys_do_not_open() -> None:
    """A colluding site signs two sets of keys, and the aggregator shows one to each half."""
    simulation = Simulation(make_terms(4))
    keys = simulation.keys()
    twin = Participant(simulation.terms, Signer(4), earlier=()).announce_keys()
    assert twin.payload != keys[3].payload
    shares = [
        simulation.participants[1].share(keys),
        simulation.participants[2].share([*keys[:3], twin]),
        simulation.participants[3].share(keys),
        simulation.participants[4].share(keys),
    ]
    with pytest.raises(InvalidShareError) as caught:
        simulation.participants[1].open_shares(shares)
    assert caught.value.dealer == ROSTER[1]
    assert simulation.participants[1].phase is Phase.SHARES
    # Without the other half there are too few.
    with pytest.raises(InvalidShareError):
        simulation.participants[2].open_shares(shares)
    with pytest.raises(EquivocationError, match="another"):
        simulation.participants[1].share([*keys[:3], twin])


@pytest.mark.parametrize(
    "changes",
    [
        {"base_model": keccak256(b"a model made for one")},
        {"length": 6},
        {"ring_bits": 64},
        {"roster": (ROSTER[1], ROSTER[0], *ROSTER[2:4])},
    ],
    ids=["base model", "length", "ring", "order"],
)
def test_other_terms_under_the_same_context_do_not_open(changes: dict[str, Any]) -> None:
    """The aggregator talks one institution into another base model or encoding, with a manifest hash that everybody accepts."""
    terms = make_terms(4)
    keys = [Participant(terms, Signer(i), earlier=()) for i in (1, 2, 3, 4)]
    other = replace(terms, **changes)
    misled = Participant(other, Signer(3), earlier=())
    assert other.ctx == terms.ctx
    people = [keys[0], keys[1], misled, keys[3]]
    announced = [participant.announce_keys() for participant in people]
    if other.roster != terms.roster:
        # Positions are in the keys themselves.
        with pytest.raises(MalformedMessageError, match="has position"):
            misled.share(announced)
        return
    shares = [participant.share(announced) for participant in people]
    for participant in people:
        with pytest.raises(InvalidShareError, match="other keys or terms"):
            participant.open_shares(shares)


def test_another_graph_seed_does_not_open() -> None:
    """Whoever could choose the graph for one institution would choose its neighbours."""
    simulation = Simulation(make_terms(4))
    keys = simulation.keys()
    shares = [simulation.participants[i].share(keys, graph_seed=bytes(32) if i > 1 else keccak256(b"mine")) for i in simulation.everybody]
    for participant in simulation.participants.values():
        with pytest.raises(InvalidShareError):
            participant.open_shares(shares)


def test_split_views_of_the_shares_are_not_consented_to() -> None:
    """The aggregator hides the fourth site's shares from the first, whose mask with it is then missing."""
    simulation = Simulation(make_terms(4))
    simulation.keys()
    shares = simulation.shares()
    simulation.participants[1].open_shares(shares[:3])
    simulation.open({2, 3, 4})
    masked = [simulation.upload(i) for i in (1, 2, 3)]
    # The fourth "drops out", so that all four could name the same survivors.
    consents = [simulation.participants[i].consent(masked) for i in (1, 2, 3, 4)]
    assert all(message.payload["survivors"] == consents[0].payload["survivors"] for message in consents)
    with pytest.raises(EquivocationError, match="views of this round differ"):
        simulation.participants[1].unmask(consents)
    with pytest.raises(EquivocationError, match="views of this round differ"):
        simulation.participants[2].unmask(consents)
    with pytest.raises(BelowThresholdError):
        simulation.participants[1].unmask(consents[:1])


def test_the_shares_are_shown_once() -> None:
    simulation = Simulation(make_terms(4))
    simulation.keys()
    shares = simulation.shares()
    simulation.participants[1].open_shares(shares)
    with pytest.raises(EquivocationError, match="aggregator now shows another"):
        simulation.participants[1].open_shares(shares[:3])


REPLAYED = {
    "attempt": {"attempt": 2},
    "round": {"round": 4},
    "federation": {"federation": keccak256(b"another")},
    "chain": {"chain_id": 1},
    "registry": {"registry": ROSTER[9]},
    "manifest": {"manifest_hash": keccak256(b"another")},
}


@pytest.mark.parametrize("changes", REPLAYED.values(), ids=REPLAYED)
def test_messages_of_another_context_are_refused(changes: dict[str, Any]) -> None:
    here, there = Simulation(make_terms(3)), Simulation(make_terms(3, **changes))
    takes: list[tuple[Callable[[Simulation], list[Envelope]], Callable[[Participant, list[Envelope]], object]]] = [
        (Simulation.keys, Participant.share),
        (Simulation.shares, Participant.open_shares),
        (Simulation.masked, Participant.consent),
        (Simulation.survivors, Participant.unmask),
    ]
    for play, take in takes:
        right, replayed = play(here), play(there)
        before = here.participants[1].state()
        for messages in (replayed, [*right[:2], replayed[2]]):
            with pytest.raises(SignatureError):
                take(here.participants[1], messages)
            # The context's name alone does not help.
            with pytest.raises(SignatureError):
                take(here.participants[1], [*right[:2], replace(replayed[2], ctx=here.terms.ctx)])
        with pytest.raises(RexisError):
            here.coordinator.receive(replayed[2])
        assert here.participants[1].state() == before


def attempt(record: AttemptRecord | None, terms: RoundTerms) -> Participant:
    return Participant(terms, Signer(1), earlier=() if record is None else [AttemptRecord.parse(record.to_bytes())])


def test_after_one_answer_nothing_in_any_other_attempt() -> None:
    """Two attempts whose survivors differ by one site would give its update as the difference of the sums."""
    simulation = masked_round(4)
    simulation.survivors()
    first = simulation.participants[1]
    first.unmask(simulation.messages[Stage.SURVIVORS])
    assert first.record().outcome is Outcome.ANSWERED
    for changes in ({"attempt": 2}, {"attempt": 2, "manifest_hash": bytes(32)}, {"attempt": 2, "base_model": bytes(32)}, {"attempt": 0}):
        with pytest.raises(UnexpectedMessageError, match="nothing is sent in any other attempt"):
            attempt(first.record(), make_terms(4, **changes))
    # Nor in a later round that starts from the same model.
    with pytest.raises(UnexpectedMessageError, match="never twice"):
        attempt(first.record(), make_terms(4, round=4))
    first.drop_out()
    with pytest.raises(UnexpectedMessageError, match="nothing is sent in any other attempt"):
        attempt(first.record(), make_terms(4, attempt=2))
    assert attempt(first.record(), make_terms(4, round=4, base_model=keccak256(b"next"))).phase is Phase.JOINED


def test_two_attempts_are_never_open_together() -> None:
    simulation = masked_round(4)
    first = simulation.participants[1]
    with pytest.raises(UnexpectedMessageError, match="still open: drop out of it first"):
        attempt(first.record(), make_terms(4, attempt=2))
    first.drop_out()
    for number in (0, 1):
        with pytest.raises(UnexpectedMessageError, match="expected a later attempt"):
            attempt(first.record(), make_terms(4, attempt=number))
    assert attempt(first.record(), make_terms(4, attempt=2)).phase is Phase.JOINED


@pytest.mark.parametrize("later", [{"attempt": 2}, {"round": 4}], ids=["attempt", "round"])
def test_one_vector_for_each_base_model(later: dict[str, int]) -> None:
    """An attempt that failed after masking is repeated with the same vector, or not at all."""
    simulation = masked_round(4)
    first = simulation.participants[1]
    first.drop_out()
    again = Simulation(make_terms(4, **later), earlier={1: [first.record()]})
    again.keys()
    again.shares()
    again.open()
    retrained = update_of(again.terms, 1) + np.uint32(1)
    kept = retrained.copy()
    for participant in (again.participants[1], Participant.restore(again.terms, Signer(1), again.participants[1].state())):
        with pytest.raises(UnexpectedMessageError, match="another vector was fixed"):
            participant.mask(retrained)
        assert np.array_equal(retrained, kept)
    again.masked()
    again.survivors()
    assert again.unmask().tolist() == sum((update_of(again.terms, i) for i in (2, 3, 4)), update_of(again.terms, 1)).tolist()


def test_two_vectors_on_record_end_it() -> None:
    terms = make_terms(4, attempt=3)
    records = [AttemptRecord.of(make_terms(4, attempt=i), keccak256(bytes([i])), Outcome.DROPPED) for i in (1, 2)]
    with pytest.raises(UnexpectedMessageError, match="two vectors"):
        Participant(terms, Signer(1), earlier=records)


def test_a_second_vector_under_one_key_set_is_never_masked() -> None:
    simulation = masked_round(4)
    first = simulation.participants[1]
    second = update_of(simulation.terms, 1)
    second[0] ^= 1
    before = second.copy()
    for participant in (first, Participant.restore(simulation.terms, Signer(1), first.state())):
        with pytest.raises(UnexpectedMessageError, match="another vector was fixed"):
            participant.mask(second)
        assert np.array_equal(second, before)


def test_a_sparse_graph_does_not_isolate_a_site() -> None:
    """The aggregator declares all honest neighbours of one site dropped, so that every mask but its self mask could be removed."""
    terms = make_terms(20, degree=8)
    simulation = Simulation(terms, graph_seed=keccak256(b"block"))
    simulation.keys()
    shares = {terms.position(message.sender): message for message in simulation.shares()}
    simulation.open()
    masked = {i: simulation.upload(i) for i in simulation.everybody}
    # Rebuilt from public messages, as the aggregator would.
    keys = dict(enumerate(simulation.messages[Stage.KEYS], start=1))
    directory = ShareDirectory.freeze(KeyDirectory.freeze(terms, keys, simulation.graph_seed), shares)
    neighbours = directory.masked_with(1)
    assert len(neighbours) == 8
    isolating = [masked[i] for i in sorted(set(simulation.everybody) - neighbours)]
    # The participant itself sees that its neighbourhood is gone.
    with pytest.raises(BelowThresholdError, match="neighbourhood"):
        simulation.participants[1].consent(isolating)
    # With just enough neighbours left, those declared dropped still keep their shares of its self seed to themselves.
    needed = directory.keys.threshold(1)
    gone = sorted(neighbours)[: len(neighbours) + 1 - needed]
    survivors = [masked[i] for i in sorted(set(simulation.everybody) - set(gone))]
    fixed = SurvivorSet.freeze(directory, {terms.position(message.sender): message for message in survivors}).fixed
    for i in gone:
        with pytest.raises(UnexpectedMessageError, match="not among those who may answer"):
            simulation.participants[i].unmask_fixed(survivors, fixed)
    answer = simulation.participants[1].unmask_fixed(survivors, fixed)
    assert {entry["of"] for entry in answer.payload["self"]} == {ROSTER[0]} | {ROSTER[i - 1] for i in neighbours - set(gone)}


def test_leaving_out_keys_makes_nobody_another_neighbour() -> None:
    """Who knows the order before the keys are closed could else pick those that count, until colluders surround one site."""
    terms = make_terms(20, degree=6)
    simulation = Simulation(terms, graph_seed=keccak256(b"block"))
    keys = dict(enumerate(simulation.keys(), start=1))
    whole = KeyDirectory.freeze(terms, keys, simulation.graph_seed)
    refused = 0
    for gone in combinations(range(2, 21), 3):
        left = {position: message for position, message in keys.items() if position not in gone}
        try:
            directory = KeyDirectory.freeze(terms, left, simulation.graph_seed)
        except BelowThresholdError:
            refused += 1
            continue
        assert directory.threshold(1) == whole.threshold(1)
        assert all(directory.neighbours[position] == whole.neighbours[position] - set(gone) for position in left)
    # Three of one neighbourhood are too many for this degree.
    assert refused > 0


def test_a_masked_vector_of_another_is_not_a_survivor() -> None:
    """The aggregator cannot make up a survivor, nor one's vector."""
    simulation = masked_round(4)
    masked = simulation.messages[Stage.MASKED]
    first = simulation.participants[1]
    before = first.state()
    made_up = Envelope(
        Stage.MASKED, masked[1].ctx, masked[1].sender, dict(masked[1].payload) | {"digest": to_hex(bytes(32))}, masked[1].signature
    )
    with pytest.raises(SignatureError):
        first.consent([masked[0], made_up, *masked[2:]])
    with pytest.raises(EquivocationError, match="two different messages"):
        first.consent([resigned(masked[0], 1, digest=to_hex(bytes(32))), *masked[1:]])
    with pytest.raises(EquivocationError, match="two different messages"):
        first.consent([*masked, resigned(masked[1], 2, digest=to_hex(bytes(32)))])
    assert first.state() == before


def test_a_message_it_does_not_remember_stops_an_institution() -> None:
    """Its state was rolled back: it signed a masked vector that it no longer knows of, and must not sign another."""
    simulation = Simulation(make_terms(4))
    simulation.keys()
    simulation.shares()
    simulation.open()
    rolled_back = simulation.participants[1].state()
    simulation.masked()
    participant = Participant.restore(simulation.terms, Signer(1), rolled_back)
    with pytest.raises(EquivocationError, match="no memory of"):
        participant.consent(simulation.messages[Stage.MASKED])


def test_the_rebuilt_mask_of_the_dropped_leaves_its_vector_masked() -> None:
    """A vector that arrives after the survivors were fixed: its pairwise masks are known to the aggregator, its self mask is not."""
    simulation = Simulation(make_terms(4, length=400))
    simulation.keys()
    simulation.shares()
    simulation.open()
    late = simulation.upload(4)
    simulation.masked({1, 2, 3})
    simulation.survivors()
    simulation.unmask()
    with pytest.raises(UnexpectedMessageError):
        simulation.coordinator.receive(late)
    answers = [simulation.participants[i].sent[-1] for i in (1, 2, 3)]
    assert all(entry["of"] != ROSTER[3] for answer in answers for entry in answer.payload["self"])
    assert {entry["of"] for answer in answers for entry in answer.payload["pairwise"]} == {ROSTER[3]}
    vector = np.frombuffer(simulation.uploads[ROSTER[3]], dtype=simulation.terms.dtype)
    # Uniform: the mean of 400 entries is within six standard deviations of the middle of the ring, and no entry is right.
    assert abs(float(np.mean(vector)) / 2**32 - 0.5) < 6 / (12 * 400) ** 0.5
    assert np.count_nonzero(vector == update_of(simulation.terms, 4)) <= 1
