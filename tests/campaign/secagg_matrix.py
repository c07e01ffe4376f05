"""Everything that can go wrong in one attempt of a secure aggregation, cell by cell: who, at which stage, among how many.

    dropped      a site is gone from a stage on; and exactly n - t and n - t + 1 of them
    late, early  a message outside its stage             repeated     the same message again, and another one of the same stage
    shuffled     every list in another order, twice      truncated    messages cut anywhere, uploads cut or lengthened
    split        two survivor sets are shown             both         one site in both lists of shares
    keys         another's keys, or two sets of one      base         one site is talked into another base model
    shares       one site answers with wrong shares

Every cell ends in the exact sum of the survivors, or in a refusal that changed nothing and opened nothing. State machines only; there is no
network, so that thousands of cells take minutes. `make test` takes a seeded sample for n = 4 and 5.
"""

import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from rexis.encoding import keccak256, to_hex
from rexis.errors import (
    BelowThresholdError,
    DigestMismatchError,
    EquivocationError,
    InvalidShareError,
    MalformedMessageError,
    RexisError,
    SignatureError,
    UnexpectedMessageError,
)
from rexis.protocol.secagg_messages import Envelope, Stage
from rexis.secagg import Coordinator, Participant, shamir
from rexis.secagg.terms import RoundTerms
from tests.campaign.record import commit
from tests.unit.secagg_rounds import ROSTER, Signer, Simulation, chunked, make_terms, noted_signatures, plain_sum, resigned

# The roster sizes of the specification's table, and its bound on colluders (`specs/secure-aggregation.md` 3.1).
COLLUDERS = {3: 1, 4: 1, 5: 1, 10: 3, 20: 6}
SIZES = (3, 5, 10, 20)
STAGES = tuple(Stage)
# A member of each stage's payload that is 32 bytes.
DIGESTS = {Stage.KEYS: "mask", Stage.SHARES: "commitment", Stage.MASKED: "digest", Stage.SURVIVORS: "masked", Stage.UNMASK: "survivors"}
OTHER = to_hex(keccak256(b"other")[:31] + b"\0")
CUTS = 12


class Attempt:
    """One attempt among n in which everybody is present, as it is when each stage is open and when all is over."""

    def __init__(self, n: int, coordinator: Callable[[RoundTerms], Coordinator] = Coordinator) -> None:
        self.n, self.terms = n, make_terms(n, COLLUDERS[n])
        simulation = Simulation(self.terms)
        simulation.coordinator = coordinator(self.terms)
        self._open: dict[Stage, Simulation] = {}
        for stage in STAGES:
            self._open[stage] = simulation.fork()
            play(simulation, stage)
        self.whole = simulation

    def at(self, stage: Stage) -> Simulation:
        """The attempt when everybody has sent all before this stage."""
        return self._open[stage].fork()

    @property
    def everybody(self) -> frozenset[int]:
        return frozenset(range(1, self.n + 1))

    def needed(self, stage: Stage) -> int:
        """Fewest messages of a stage with which it goes on."""
        needed = self.terms.thresholds
        return needed.threshold if stage in (Stage.SURVIVORS, Stage.UNMASK) else needed.min_survivors


@dataclass(frozen=True)
class Cell:
    """One thing that goes wrong. `check` raises AssertionError, or whatever else it met, if the answer is not the right one."""

    kind: str
    n: int
    what: str
    check: Callable[[Attempt], None]


def cells(n: int, seed: int) -> Iterator[Cell]:
    """All cells for a roster of n; what is drawn at random is drawn from the seed."""
    choice = random.Random(seed * 1000 + n)
    spare = n - make_terms(n, COLLUDERS[n]).thresholds.threshold
    for stage in STAGES:
        for site in range(1, n + 1):
            yield Cell("dropped", n, f"{site} at {stage}", partial(check_dropped, stage=stage, gone=frozenset({site})))
            yield Cell("late", n, f"{site} at {stage}", partial(check_late, stage=stage, site=site))
            yield Cell("early", n, f"{site} before {stage}", partial(check_early, stage=stage, site=site))
            yield Cell("repeated", n, f"{site} at {stage}", partial(check_repeated, stage=stage, site=site))
        for number in {spare, spare + 1} - {0}:
            gone = frozenset(choice.sample(range(1, n + 1), number))
            yield Cell("dropped", n, f"{sorted(gone)} at {stage}", partial(check_dropped, stage=stage, gone=gone))
        yield Cell("truncated", n, f"messages of {stage}", partial(check_truncated_messages, stage=stage, seed=choice.getrandbits(32)))
    for _ in range(3):
        yield Cell("shuffled", n, "everything", partial(check_shuffled, seed=choice.getrandbits(32)))
    for site in range(1, n + 1):
        yield Cell("truncated", n, f"upload of {site}", partial(check_truncated_upload, site=site))
        shown = choice.sample(range(1, n + 1), choice.randint(1, n - 1))
        yield Cell("split", n, f"{shown} without {site}", partial(check_split_survivors, left_out=site, shown_fewer=frozenset(shown)))
        yield Cell("both", n, f"{site} in both lists", partial(check_both_lists, site=site))
        yield Cell("keys", n, f"of another as {site}'s", partial(check_swapped_keys, site=site))
        yield Cell("keys", n, f"two sets of {site}", partial(check_two_key_sets, site=site))
        yield Cell("base", n, f"another one for {site}", partial(check_other_base, site=site))
        yield Cell("shares", n, f"wrong ones of {site}", partial(check_wrong_shares, site=site))


def play(simulation: Simulation, stage: Stage, present: Collection[int] | None = None) -> np.ndarray | None:
    """One stage to its end; the sum, if it is the last one."""
    result = getattr(simulation, stage.value)(present)
    return result if stage is Stage.UNMASK else None


def play_on(attempt: Attempt, simulation: Simulation, after: Stage, present: Collection[int], survivors: Collection[int]) -> None:
    """The stages after one, with those present; the sum must be that of the survivors."""
    for stage in STAGES[STAGES.index(after) + 1 :]:
        total = play(simulation, stage, present)
    assert np.array_equal(total, plain_sum(attempt.terms, survivors))


def check_dropped(attempt: Attempt, *, stage: Stage, gone: frozenset[int]) -> None:
    simulation, stay = attempt.at(stage), attempt.everybody - gone
    for now in STAGES[STAGES.index(stage) :]:
        if len(stay) < attempt.needed(now):
            with pytest.raises(BelowThresholdError) as caught:
                play(simulation, now, stay)
            assert (caught.value.required, caught.value.got) == (attempt.needed(now), len(stay))
            return closed(attempt, simulation)
        total = play(simulation, now, stay)
    survivors = stay if STAGES.index(stage) <= STAGES.index(Stage.MASKED) else attempt.everybody
    assert np.array_equal(total, plain_sum(attempt.terms, survivors))
    return None


def closed(attempt: Attempt, simulation: Simulation) -> None:
    """No sum can be had, and of no secret does the aggregator hold enough shares."""
    with pytest.raises((BelowThresholdError, UnexpectedMessageError)):
        simulation.opened()
    answers = [message for one in simulation.participants.values() for message in one.sent if message.stage is Stage.UNMASK]
    for kind in ("self", "pairwise"):
        for address in attempt.terms.roster:
            held = sum(entry["of"] == address for message in answers for entry in message.payload[kind])
            assert held < attempt.terms.thresholds.threshold


def check_late(attempt: Attempt, *, stage: Stage, site: int) -> None:
    simulation, stay = attempt.at(stage), attempt.everybody - {site}
    message = made_by(attempt, site, stage)
    coordinator = simulation.coordinator
    if len(stay) < attempt.needed(stage):
        with pytest.raises(BelowThresholdError):
            play(simulation, stage, stay)
        # The stage is still open for it.
        assert coordinator.awaited == (ROSTER[site - 1],)
        return
    play(simulation, stage, stay)
    before = coordinator.state()
    with pytest.raises(UnexpectedMessageError, match="is not open"):
        coordinator.receive(message)
    assert coordinator.state() == before


def check_early(attempt: Attempt, *, stage: Stage, site: int) -> None:
    message = made_by(attempt, site, stage)
    for earlier in STAGES[: STAGES.index(stage)]:
        coordinator = attempt.at(earlier).coordinator
        before = coordinator.state()
        with pytest.raises(UnexpectedMessageError, match="is not open"):
            coordinator.receive(message)
        assert coordinator.state() == before


def check_repeated(attempt: Attempt, *, stage: Stage, site: int) -> None:
    coordinator, message = attempt.whole.fork().coordinator, made_by(attempt, site, stage)
    before = coordinator.state()
    coordinator.receive(message)
    with pytest.raises(EquivocationError, match="the first one counts"):
        coordinator.receive(resigned(message, site, **{DIGESTS[stage]: OTHER}))
    assert coordinator.state() == before


def check_truncated_messages(attempt: Attempt, *, stage: Stage, seed: int) -> None:
    choice = random.Random(seed)
    for site in attempt.everybody:
        content = made_by(attempt, site, stage).to_bytes()
        for cut in (0, len(content) - 1, *(choice.randrange(len(content)) for _ in range(CUTS))):
            with pytest.raises(MalformedMessageError):
                Envelope.parse(content[:cut])


def check_truncated_upload(attempt: Attempt, *, site: int) -> None:
    simulation = attempt.whole.fork()
    right = simulation.uploads[ROSTER[site - 1]]
    for wrong in (right[:-1], right[:-4], right[1:], right + bytes(4), b""):
        (masked_sum,) = simulation.coordinator.masked_sums()
        with pytest.raises((DigestMismatchError, MalformedMessageError)):
            masked_sum.add(ROSTER[site - 1], chunked(wrong, 3))
        with pytest.raises(UnexpectedMessageError, match="void"):
            simulation.coordinator.unmask([masked_sum])
    assert np.array_equal(simulation.opened(), plain_sum(attempt.terms, attempt.everybody))


class Shuffled(Simulation):
    """Lists arrive in another order, and some messages twice."""

    choice: random.Random

    def _receive(self, messages: Iterator[Envelope]) -> None:
        super()._receive(iter(self._mixed(list(messages))))

    def _closed(self, stage: Stage, messages: Sequence[Envelope]) -> list[Envelope]:
        return super()._closed(stage, self._mixed(messages))

    def _mixed(self, messages: Sequence[Envelope]) -> list[Envelope]:
        return self.choice.sample([*messages, *messages], 2 * len(messages))


def check_shuffled(attempt: Attempt, *, seed: int) -> None:
    simulation = Shuffled(attempt.terms)
    simulation.choice = random.Random(seed)
    assert np.array_equal(simulation.run(), plain_sum(attempt.terms, attempt.everybody))


def check_split_survivors(attempt: Attempt, *, left_out: int, shown_fewer: frozenset[int]) -> None:
    """Some are shown everybody, some everybody but one, and colluders sign both; whoever answers, answers for one set only."""
    simulation = attempt.at(Stage.SURVIVORS)
    everybody = simulation.messages[Stage.MASKED]
    fewer = [message for message in everybody if message.sender != ROSTER[left_out - 1]]
    colluders = sorted(attempt.everybody)[-COLLUDERS[attempt.n] :]
    signed: list[Envelope] = []
    for i in attempt.everybody:
        views = (everybody, fewer) if i in colluders else ((fewer,) if i in shown_fewer else (everybody,))
        for view in views:
            one = Participant.restore(attempt.terms, Signer(i), simulation.participants[i].state()) if i in colluders else None
            try:
                signed.append((one or simulation.participants[i]).consent(view))
            except BelowThresholdError:
                # A set that nobody may open at all.
                assert view is fewer
                assert len(fewer) < attempt.needed(Stage.MASKED)
    answered = []
    for i in attempt.everybody - set(colluders):
        if simulation.participants[i].sent[-1].stage is not Stage.SURVIVORS:
            continue
        mine = simulation.participants[i].sent[-1]
        for shown in (signed, [message for message in signed if message.payload == mine.payload]):
            try:
                answered.append(simulation.participants[i].unmask(shown))
            except (EquivocationError, BelowThresholdError):
                continue
    assert len({message.payload["survivors"] for message in answered}) <= 1


def check_both_lists(attempt: Attempt, *, site: int) -> None:
    answer = made_by(attempt, site, Stage.UNMASK)
    with pytest.raises(MalformedMessageError, match="got both for"):
        resigned(answer, site, pairwise=answer.payload["self"][:1])


def check_swapped_keys(attempt: Attempt, *, site: int) -> None:
    """The aggregator puts keys of its own in place of a site's: it can sign them with any key but the right one."""
    simulation = attempt.at(Stage.SHARES)
    keys, other = simulation.messages[Stage.KEYS], site % attempt.n + 1
    swapped = replace(resigned(keys[site - 1], other, mask=OTHER), sender=ROSTER[site - 1])
    for i in attempt.everybody - {site}:
        before = simulation.participants[i].state()
        with pytest.raises(SignatureError):
            simulation.participants[i].share([*keys[: site - 1], swapped, *keys[site:]])
        assert simulation.participants[i].state() == before


def check_two_key_sets(attempt: Attempt, *, site: int) -> None:
    """A colluding site signs two sets of keys, and each half is shown another one."""
    simulation = attempt.at(Stage.SHARES)
    keys, honest = simulation.messages[Stage.KEYS], sorted(attempt.everybody - {site})
    twin = [*keys[: site - 1], Participant(attempt.terms, Signer(site), earlier=()).announce_keys(), *keys[site:]]
    half = honest[: len(honest) // 2]
    shares = [simulation.participants[i].share(twin if i in half else keys) for i in sorted(attempt.everybody)]
    for i in honest:
        with pytest.raises(InvalidShareError):
            simulation.participants[i].open_shares(shares)


def check_other_base(attempt: Attempt, *, site: int) -> None:
    other = replace(attempt.terms, base_model=keccak256(b"a model made for one"))
    people = {i: Participant(other if i == site else attempt.terms, Signer(i), earlier=()) for i in sorted(attempt.everybody)}
    keys = [one.announce_keys() for one in people.values()]
    shares = [one.share(keys) for one in people.values()]
    for one in people.values():
        with pytest.raises(InvalidShareError, match="other keys or terms"):
            one.open_shares(shares)


def check_wrong_shares(attempt: Attempt, *, site: int) -> None:
    """One liar is outvoted and named where an answer is spare; else the attempt ends without a sum."""
    simulation = attempt.at(Stage.UNMASK)
    spoilt = to_hex((12345).to_bytes(shamir.SHARE_SIZE, "big"))
    for i in sorted(attempt.everybody):
        answer = simulation.participants[i].unmask(simulation.messages[Stage.SURVIVORS])
        lie = resigned(answer, i, self=[entry | {"share": spoilt} for entry in answer.payload["self"]])
        simulation.coordinator.receive(lie if i == site else answer)
    if attempt.terms.thresholds.threshold == attempt.n:
        with pytest.raises(InvalidShareError):
            simulation.opened()
        return
    assert np.array_equal(simulation.opened(), plain_sum(attempt.terms, attempt.everybody))
    assert {holder for holder, _ in simulation.coordinator.wrong_shares} == {ROSTER[site - 1]}


def made_by(attempt: Attempt, site: int, stage: Stage) -> Envelope:
    """The message that a site sent in the whole attempt."""
    return attempt.whole.participants[site].sent[STAGES.index(stage)]


def campaign(seed: int, sizes: Sequence[int], tell: Callable[[str], None] = lambda _line: None) -> dict[str, Any]:
    """Check all cells of these rosters. Returns what `python -m tests.campaign` prints."""
    started, counted, failures = time.monotonic(), {}, []
    with noted_signatures():
        for n in sizes:
            attempt, kinds = Attempt(n), Counter[str]()
            for cell in cells(n, seed):
                kinds[cell.kind] += 1
                failure = failure_of(cell, attempt)
                if failure is not None:
                    failures.append(failure)
                    tell(failure)
            counted[str(n)] = dict(kinds)
            tell(f"n = {n}: {kinds.total()} cells")
    return {
        "campaign": "secagg",
        "seed": seed,
        "commit": commit(),
        "cells": counted,
        "checked": sum(sum(kinds.values()) for kinds in counted.values()),
        "failures": failures,
        "duration_s": round(time.monotonic() - started, 1),
    }


def passed(result: dict[str, Any]) -> bool:
    """Whether every cell had the right answer."""
    return result["checked"] > 0 and not result["failures"]


def failure_of(cell: Cell, attempt: Attempt) -> str | None:
    """What was wrong about the answer to a cell, None if nothing."""
    try:
        cell.check(attempt)
    except (AssertionError, RexisError, ValueError, pytest.fail.Exception) as error:
        return f"{cell.kind}, n = {cell.n}, {cell.what}: {type(error).__name__}: {error}"
    return None
