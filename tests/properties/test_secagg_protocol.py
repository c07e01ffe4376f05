"""Laws of whole rounds: for every roster, graph and drop-out the sum is exact or there is none, and no order of steps breaks a rule."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rexis.encoding import keccak256
from rexis.errors import BelowThresholdError, RexisError, UnexpectedMessageError
from rexis.protocol.secagg_messages import Envelope, Stage
from rexis.secagg import Coordinator, Participant, graph
from rexis.secagg.group_pad import remove_group_pad
from rexis.secagg.participant_state import Phase
from tests.unit.secagg_rounds import ROSTER, Signer, Simulation, make_terms, noted_signatures, plain_sum, update_of

GROUP_KEY = keccak256(b"group key")


@pytest.fixture(scope="module", autouse=True)
def _noted_signatures() -> Iterator[None]:
    with noted_signatures():
        yield


@st.composite
def rounds(draw: st.DrawFn) -> dict[str, Any]:
    n = draw(st.integers(3, 8))
    collusion_bound = draw(st.integers(0, n - 2))
    leaves = draw(st.dictionaries(st.integers(1, n), st.sampled_from(list(Stage)), max_size=min(n, 4)))
    return {
        "n": n,
        "collusion_bound": collusion_bound,
        "leaves": leaves,
        "bits": draw(st.sampled_from([32, 64])),
        "length": draw(st.integers(1, 40)),
        "padded": draw(st.booleans()),
        "killed": draw(st.booleans()),
        "on_chain": draw(st.booleans()),
        "comes_back": draw(st.booleans()),
    }


@settings(max_examples=25, deadline=None)
@given(chosen=rounds())
def test_the_sum_is_exact_or_nothing_is(chosen: dict[str, Any]) -> None:
    n, stages = chosen["n"], list(Stage)
    try:
        terms = make_terms(n, chosen["collusion_bound"], ring_bits=chosen["bits"], length=chosen["length"])
    except BelowThresholdError:
        assert n < max((n + chosen["collusion_bound"]) // 2 + 1, chosen["collusion_bound"] + 2)
        return
    least = terms.thresholds.min_survivors
    simulation = Simulation(terms, group_key=GROUP_KEY if chosen["padded"] else None, killed=chosen["killed"])

    def present(stage: Stage) -> set[int]:
        return {i for i in range(1, n + 1) if i not in chosen["leaves"] or stages.index(chosen["leaves"][i]) > stages.index(stage)}

    for stage, play in ((Stage.KEYS, simulation.keys), (Stage.SHARES, simulation.shares), (Stage.MASKED, simulation.masked)):
        if len(present(stage)) < least:
            with pytest.raises(BelowThresholdError):
                play(present(stage))
            # Whoever asks for the sum now gets none.
            with pytest.raises(UnexpectedMessageError):
                simulation.coordinator.masked_sums()
            return
        play(present(stage))
    survivors = present(Stage.MASKED)
    # Whoever did not finish its upload but is still there helps the others.
    helpers = {i for i, stage in chosen["leaves"].items() if stage is Stage.MASKED} if chosen["comes_back"] else set()
    consenting, answering = present(Stage.SURVIVORS) | helpers, present(Stage.UNMASK) | helpers
    fixed = None
    if chosen["on_chain"]:
        fixed = simulation.fix_on_chain()
    elif len(consenting) < terms.thresholds.threshold:
        with pytest.raises(BelowThresholdError):
            simulation.survivors(consenting)
        return
    else:
        simulation.survivors(consenting)
    if len(answering) < terms.thresholds.threshold:
        with pytest.raises(BelowThresholdError):
            simulation.unmask(answering, fixed)
        return
    total = simulation.unmask(answering, fixed)
    expected = plain_sum(terms, survivors)
    if chosen["padded"]:
        assert chosen["length"] < 8 or not np.array_equal(total, expected)
        remove_group_pad(total, GROUP_KEY, terms.ctx, survivors)
    assert np.array_equal(total, expected)


@settings(max_examples=8, deadline=None)
@given(seed=st.binary(min_size=32, max_size=32), degree=st.sampled_from([6, 8]), data=st.data())
def test_random_sparse_graphs_give_the_exact_sum_or_none(seed: bytes, degree: int, data: st.DataObject) -> None:
    terms = make_terms(12, degree=degree, length=9)
    leaves = data.draw(st.dictionaries(st.integers(1, 12), st.sampled_from(list(Stage)), max_size=5))
    simulation, stages = Simulation(terms, graph_seed=seed), list(Stage)

    def present(stage: Stage) -> set[int]:
        return {i for i in simulation.everybody if i not in leaves or stages.index(leaves[i]) > stages.index(stage)}

    def holders(position: int) -> set[int]:
        ring = graph.neighbours(simulation.everybody, degree, seed)
        return ring[position] | {position}

    def is_allowed(dealers: set[int], answering: set[int]) -> bool:
        needed = graph.neighbourhood_threshold(12, terms.thresholds.collusion_bound, degree)
        return all(len(holders(position) & answering) >= needed for position in dealers)

    steps = (simulation.keys, simulation.shares, simulation.masked)
    dealers = set(simulation.everybody)
    for stage, play in zip(stages, steps, strict=False):
        dealers = present(stage) if stage is not Stage.MASKED else dealers
        if len(present(stage)) < terms.thresholds.min_survivors or not is_allowed(dealers, present(stage)):
            with pytest.raises(BelowThresholdError):
                play(present(stage))
            with pytest.raises(UnexpectedMessageError):
                simulation.coordinator.masked_sums()
            return
        play(present(stage))
    simulation.fix_on_chain()
    if not is_allowed(dealers, present(Stage.UNMASK)):
        with pytest.raises(BelowThresholdError):
            simulation.unmask(present(Stage.UNMASK), simulation.coordinator.survivors.fixed)
        return
    total = simulation.unmask(present(Stage.UNMASK), simulation.coordinator.survivors.fixed)
    assert np.array_equal(total, plain_sum(terms, present(Stage.MASKED)))


@pytest.fixture(scope="module")
def played() -> tuple[Simulation, list[list[Envelope]]]:
    """A finished round of four, and other lists of its messages that a malicious aggregator might show."""
    simulation = Simulation(make_terms(4))
    simulation.run()
    other = Simulation(make_terms(4, attempt=2))
    other.run()
    lists = [simulation.messages[stage] for stage in list(Stage)[:4]]
    short = [messages[:3] for messages in lists] + [messages[1:] for messages in lists]
    return simulation, [*lists, *short, *other.messages.values(), [], lists[0] + lists[1]]


Step = Callable[[Participant, list[Envelope], Simulation], object]
STEPS: list[Step] = [
    lambda one, shown, played: one.announce_keys(),
    lambda one, shown, played: one.share(shown),
    lambda one, shown, played: one.open_shares(shown),
    lambda one, shown, played: one.mask(update_of(played.terms, 1)),
    lambda one, shown, played: one.mask(update_of(played.terms, 2)),
    lambda one, shown, played: one.announce_masked("upload-1"),
    lambda one, shown, played: one.announce_masked("upload-2"),
    lambda one, shown, played: one.consent(shown),
    lambda one, shown, played: one.unmask(shown),
    lambda one, shown, played: one.unmask_fixed(shown, played.coordinator.survivors.fixed),
]


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_no_order_of_steps_breaks_a_rule(played: tuple[Simulation, list[list[Envelope]]], data: st.DataObject) -> None:
    """From some point of its own round, an institution is driven through random steps with random messages, and killed at random."""
    simulation, shown = played
    fresh = Simulation(simulation.terms)
    own = fresh.participants[1]
    start = data.draw(st.integers(0, 2))
    if start:
        fresh.keys()
        shown = [fresh.messages[Stage.KEYS], *shown]
    if start > 1:
        fresh.shares()
        fresh.masked()
        shown = [fresh.messages[Stage.SHARES], fresh.messages[Stage.MASKED], fresh.messages[Stage.MASKED][:3], *shown]
    sent: dict[Stage, set[bytes]] = {stage: {message.to_bytes() for message in own.sent if message.stage is stage} for stage in Stage}
    for _ in range(data.draw(st.integers(1, 12))):
        before, phase = own.state(), own.phase
        step, messages = data.draw(st.sampled_from(STEPS)), data.draw(st.sampled_from(shown))
        try:
            step(own, messages, simulation)
        except RexisError:
            assert own.state() == before
        assert list(Phase).index(own.phase) >= list(Phase).index(phase)
        for message in own.sent:
            sent[message.stage].add(message.to_bytes())
        assert all(len(versions) <= 1 for versions in sent.values())
        if data.draw(st.booleans()):
            own = Participant.restore(simulation.terms, Signer(1), own.state())
    for message in own.sent:
        if message.stage is Stage.UNMASK:
            of = [entry["of"] for kind in ("self", "pairwise") for entry in message.payload[kind]]
            assert len(of) == len(set(of))


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(20)), repeats=st.lists(st.integers(0, 19), max_size=6))
def test_the_aggregator_takes_messages_in_any_order_within_a_stage(
    played: tuple[Simulation, list[list[Envelope]]], order: list[int], repeats: list[int]
) -> None:
    """All messages of a round are offered in a random order, again and again, and stages are closed as soon as they are full."""
    simulation, _ = played
    messages = [message for participant in simulation.participants.values() for message in participant.sent]
    coordinator = Coordinator(simulation.terms)
    offered = [messages[at] for at in [*order, *repeats]]
    for stage in Stage:
        for message in offered:
            try:
                coordinator.receive(message)
            except UnexpectedMessageError:
                assert list(Stage).index(message.stage) > list(Stage).index(stage)
        assert coordinator.awaited == ()
        if stage is not Stage.UNMASK:
            assert {message.sender for message in getattr(coordinator, f"close_{stage}")()} == set(ROSTER[:4])
    (masked_sum,) = coordinator.masked_sums()
    for address, data in simulation.uploads.items():
        masked_sum.add(address, [data])
    assert np.array_equal(coordinator.unmask([masked_sum])[0], plain_sum(simulation.terms, simulation.everybody))
    assert coordinator.state() == simulation.coordinator.state()
