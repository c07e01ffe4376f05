"""What groups are there for, and what they cost: poisoned updates, and sums over different groups that are subtracted from each other."""

import numpy as np
import pytest
from numpy.typing import NDArray

from rexis.encoding import checksum_address, sha256
from rexis.protocol.federation_config import FederationConfig
from rexis.secagg.groups import draw_groups
from rexis.secagg.masks import RingVector
from rexis.secagg.payloads import encode_update, update_encoding
from rexis.secagg.server_steps import flatten, server_step
from tests.unit.test_federation_config import CONFIG

SITES, ROWS, FEATURES, ROUNDS = 20, 28, 10, 40
GROUPS = {"count": 5, "rule": "median"}


def federation(groups: dict[str, object] | None, clipping_norm: str) -> FederationConfig:
    """Twenty hospitals that train a logistic regression on ten features."""
    names = [{"column": f"x{number}", "kind": "number"} for number in range(FEATURES)]
    members = [{"address": checksum_address(f"0x{number:040x}"), "dataset": number} for number in range(1, SITES + 1)]
    training = CONFIG["training"] | {"model": {"version": 1, "family": "logistic", "config": {"inputs": FEATURES, "outputs": 1}}}
    training |= {"clipping_norm": clipping_norm, "rounds": ROUNDS}
    features = CONFIG["features"] | {"inputs": names}
    given = CONFIG | {"members": members, "features": features, "training": training, "threshold": 11, "min_survivors": 11}
    return FederationConfig.parse(given | ({} if groups is None else {"groups": groups}))


def tables(seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Inputs [sites, rows, features] and labels [sites, rows] of one world; ten sites more than take part, to test on."""
    generator = np.random.default_rng(seed)
    truth = generator.normal(size=FEATURES)
    inputs = generator.normal(size=(SITES + 10, ROWS, FEATURES))
    chances = 1 / (1 + np.exp(-3 * (inputs @ truth)))
    return inputs, (generator.random(chances.shape) < chances).astype(np.float64)


def local_update(weights: NDArray[np.float64], inputs: NDArray[np.float64], labels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Five steps of gradient descent."""
    moved = weights.copy()
    for _ in range(5):
        errors = 1 / (1 + np.exp(-(inputs @ moved[:-1] + moved[-1]))) - labels
        moved -= 0.5 * np.append(inputs.T @ errors, errors.sum()) / len(labels)
    return moved - weights


def vector_of(config: FederationConfig, update: NDArray[np.float64], *, bad: bool, clips: bool) -> RingVector:
    """What a site masks: a bad one the update times -10, through the agent's clipping or past it."""
    if not bad or clips:
        return encode_update(config, -10 * update if bad else update, examples=ROWS, loss=0.5)
    honest, encoding = encode_update(config, update, examples=ROWS, loss=0.5), update_encoding(config)
    weight = config.training.weight(ROWS) / config.training.weight_cap if config.training is not None else 1.0
    honest[: len(update)] = encoding.encode_integers(-10 * update * encoding.scale * weight)
    return honest


def accuracy(
    bad: int, groups: dict[str, object] | None, *, clips: bool, kept: bool = False, clipping_norm: str = "10", seed: int = 1
) -> float:
    """Accuracy on other rows after forty rounds, with one draw of groups for all or one for each."""
    config, (inputs, labels) = federation(groups, clipping_norm), tables(seed)
    assert config.training is not None
    model = {name: np.zeros(shape, dtype=np.float32) for name, shape in config.training.shared.items()}
    for number in range(ROUNDS):
        weights = flatten(config.training, model)
        vectors = [
            vector_of(config, local_update(weights, inputs[site], labels[site]), bad=site < bad, clips=clips) for site in range(SITES)
        ]
        drawn = [range(1, SITES + 1)] if groups is None else draw_groups(sha256(bytes([seed, 0 if kept else number])), SITES, 5)
        totals = [sum((vectors[position - 1] for position in group), np.zeros(config.length, dtype=np.uint32)) for group in drawn]
        model = server_step(config, model, b"", totals).tensors
    weights = flatten(config.training, model)
    scores = inputs[SITES:] @ weights[:-1] + weights[-1]
    return float(((scores > 0) == (labels[SITES:] > 0.5)).mean())


@pytest.mark.parametrize("groups", [GROUPS, {"count": 5, "rule": "trimmed-mean", "trim": 2}])
def test_groups_bear_as_many_bad_sites_as_their_rule_says(groups: dict[str, object]) -> None:
    """Updates times -10, past the clipping: without groups one site of twenty is enough to turn the model round."""
    good = accuracy(0, groups, clips=False)
    assert good > 0.85
    assert all(accuracy(bad, groups, clips=False, kept=kept) > good - 0.03 for bad, kept in ((1, False), (2, False), (2, True)))
    assert accuracy(2, None, clips=False) < 0.6


def test_four_bad_sites_break_five_groups_unless_they_clip() -> None:
    """Three spoiled groups of five are the median, so what bounds a site that clips is the clipping alone."""
    assert np.mean([accuracy(4, GROUPS, clips=False, seed=seed) for seed in (1, 2)]) < 0.6
    assert np.mean([accuracy(4, GROUPS, clips=True, clipping_norm="0.3", seed=seed) for seed in (1, 2)]) > 0.8


def test_a_bad_site_that_writes_nonsense_into_its_slots_costs_its_group_and_not_the_round() -> None:
    config = federation(GROUPS, "10")
    assert config.training is not None
    base = {name: np.zeros(shape, dtype=np.float32) for name, shape in config.training.shared.items()}
    vectors = [encode_update(config, np.full(FEATURES + 1, 0.1), examples=ROWS, loss=0.5) for _ in range(SITES)]
    vectors[0][FEATURES + 1 :] = 1 << 31
    drawn = draw_groups(sha256(b"nonsense"), SITES, 5)
    totals = [sum((vectors[position - 1] for position in group), np.zeros(config.length, dtype=np.uint32)) for group in drawn]
    step = server_step(config, base, b"", totals)
    assert [mean is None for mean in step.groups] == [1 in group for group in drawn]
    assert step.metrics["groups"] == 4
    assert flatten(config.training, step.tensors) == pytest.approx(np.full(FEATURES + 1, 0.1), abs=1e-6)


def sums_of(draws: list[tuple[tuple[int, ...], ...]], members: int, colluders: int) -> NDArray[np.float64]:
    """A row for each opened sum, a column for each honest update in it; those of colluders are known and subtracted."""
    rows = np.array([[position in group for position in range(1, members + 1)] for groups in draws for group in groups], dtype=np.float64)
    return rows[:, : members - colluders]


def exposed(rows: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which columns some combination of the rows singles out."""
    _, singular, right = np.linalg.svd(rows, full_matrices=False)
    basis = right[singular > 1e-9]
    return np.square(basis).sum(axis=0) > 1 - 1e-9


def drawn(seed: int, rounds: int, members: int, count: int) -> list[tuple[tuple[int, ...], ...]]:
    return [draw_groups(sha256(seed.to_bytes(4) + bytes([number])), members, count) for number in range(rounds)]


def test_sums_over_groups_drawn_anew_show_single_updates_after_a_few_rounds() -> None:
    """R rounds of G groups give 1 + R (G - 1) independent sums of h honest updates: at R = (h - 1) / (G - 1) every one is determined.

    One is often enough determined at R = 2. So no number of draws above one is safe without noise at the sites.
    """
    for members, count, most in ((9, 3, 5), (20, 5, 5)):
        honest = members - 1
        ranks = [np.linalg.matrix_rank(sums_of(drawn(7, rounds, members, count), members, 1)) for rounds in range(1, most + 1)]
        assert all(rank <= min(honest, 1 + rounds * (count - 1)) for rounds, rank in enumerate(ranks, start=1))
        assert ranks[-1] == honest
    hit = [exposed(sums_of(drawn(seed, 2, 9, 3), 9, 1)).any() for seed in range(400)]
    assert 0.25 < np.mean(hit) < 0.45
    # The update itself, to the size of its change between rounds.
    generator, draws = np.random.default_rng(3), drawn(7, 5, 9, 3)
    updates = generator.normal(size=(9, 50))
    seen = []
    for groups in draws:
        of_round = updates + 0.01 * generator.normal(size=updates.shape)
        seen += [sum(of_round[position - 1] for position in group) - (of_round[8] if 9 in group else 0) for group in groups]
    found = np.linalg.lstsq(sums_of(draws, 9, 1), np.array(seen), rcond=None)[0]
    assert np.linalg.norm(found - updates[:8], axis=1).max() < 0.05 * np.linalg.norm(updates[:8], axis=1).min()


def test_groups_that_are_kept_show_no_more_in_a_hundred_rounds_than_in_one() -> None:
    """Each row comes again: of every honest update the sums tell what a sum of at least two tells."""
    for members, count in ((9, 3), (20, 5), (23, 5)):
        for seed in range(20):
            rows = sums_of(drawn(seed, 1, members, count) * 100, members, 1)
            _, singular, right = np.linalg.svd(rows, full_matrices=False)
            leverage = np.square(right[singular > 1e-9]).sum(axis=0)
            assert leverage.max() <= 0.5 + 1e-9


def test_one_draw_is_safe_for_as_many_colluders_as_are_assumed() -> None:
    """Wherever t_c colluders are drawn, two honest updates stay in every sum: the reason for groups of at least t_c + 2."""
    for members, count, colluders in ((9, 3, 1), (12, 3, 2)):
        draws = [drawn(seed, 1, members, count) for seed in range(200)]
        assert not any(exposed(sums_of(draw, members, colluders)).any() for draw in draws)
        # One more than assumed is one too many.
        assert any(exposed(sums_of(draw, members, colluders + 1)).any() for draw in draws)
