"""Nine institutions in three random groups against the stand-in on a real chain: agents draw the groups themselves, two of them are bad."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from web3.types import RPCEndpoint

from rexis.agent.federation.admission import graph_seed
from rexis.agent.federation.contribution import read_model
from rexis.agent.federation.founding import FederationPlan
from rexis.agent.federation.registry import Registry
from rexis.agent.federation.site_policy import SitePolicy
from rexis.chain.signer import development_signer
from rexis.errors import BelowThresholdError, PolicyError
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.plan_parts import GroupPlan
from rexis.secagg.groups import draw_groups
from rexis.secagg.payloads import decode_update, encode_update, update_encoding
from rexis.secagg.server_steps import flatten
from tests.services.federation_stand_in import Hospital, Line, StandIn, config_of, plain_update, play, rows_of

MEMBERS, ROWS = 9, 16
MEDIAN = {"count": 3, "rule": "median"}


@pytest.fixture
def nine(stand_in: StandIn, tmp_path: Path) -> Iterator[list[Hospital]]:
    """Institutions with registered and granted data sets, by address, which is the order of positions."""
    signers = sorted((development_signer(index) for index in range(4, 4 + MEMBERS)), key=lambda signer: signer.address.lower())
    made = []
    for number, signer in enumerate(signers):
        stand_in.chain.web3.provider.make_request(RPCEndpoint("anvil_setBalance"), [signer.address, hex(10**21)])
        made.append(
            Hospital(stand_in.chain, signer, rows_of(number, ROWS + number), tmp_path / f"{number}.db", Line(stand_in, signer.address))
        )
    for hospital in made:
        hospital.register()
        hospital.grant()
    yield made
    for hospital in made:
        hospital.stop()


def joined(stand_in: StandIn, hospitals: list[Hospital], **changes: Any) -> bytes:
    config = FederationConfig.parse(config_of(hospitals, "training", groups=MEDIAN, threshold=6, min_survivors=6, **changes))
    federation = stand_in.found(FederationPlan(config))
    for hospital in hospitals:
        hospital.join(federation)
    return federation


def poison(hospital: Hospital, config: FederationConfig, manifest: Any, delta: Any) -> None:
    """Have a hospital mask its update times -10, past the clipping, as its first stored vector."""
    encoding, plan = update_encoding(config), config.training
    assert plan is not None
    vector = encode_update(config, delta, examples=len(hospital.table.rows), loss=0.0)
    share = plan.weight(len(hospital.table.rows)) / plan.weight_cap
    vector[: len(delta)] = encoding.encode_integers(-10 * delta * encoding.scale * share)
    hospital.records.keep_vector(manifest, vector)


def test_two_bad_hospitals_of_one_group_move_a_round_no_further_than_honest_groups_go(stand_in: StandIn, nine: list[Hospital]) -> None:
    """And the draw holds: in the next round an aggregator that names other groups gets no shares, let alone a sum."""
    federation = joined(stand_in, nine)
    kept, registry = stand_in.kept[federation], Registry(stand_in.chain)
    attempt = stand_in.open_round(federation)
    seed = attempt.graph_seed
    assert registry.first_opening(federation) == registry.opening_block(federation, registry.federation(federation), since=0) == seed
    groups = draw_groups(seed, MEMBERS, 3)
    updates = {position: plain_update(nine[position - 1], kept.config, kept.model, kept.content) for position in range(1, MEMBERS + 1)}
    means = [sum(updates[each][1] * updates[each][0] for each in group) / sum(updates[each][1] for each in group) for group in groups]
    before = _weights(kept)
    for position in groups[1][:2]:
        poison(nine[position - 1], kept.config, attempt.manifest, updates[position][0])
    play(stand_in, federation, nine)
    moved = _weights(kept) - before
    opened = [decode_update(kept.config, total).delta for total in kept.groups]
    # Half a step of each site: groups have a sum each, of exactly their own.
    assert [bool(np.abs(found - plain).max() < 1e-8) for found, plain in zip(opened, means, strict=True)] == [True, False, True]
    assert moved == pytest.approx(np.median(opened, axis=0), abs=1e-6)
    assert (moved >= np.minimum(means[0], means[2]) - 1e-6).all()
    assert (moved <= np.maximum(means[0], means[2]) + 1e-6).all()
    assert kept.rounds[-1]["metrics"]["groups"] == 3

    attempt = stand_in.open_round(federation)
    assert attempt.graph_seed == registry.first_opening(federation) == seed
    # Groups that sites protect with noise of their own are drawn by the attempt's own block.
    redrawn = replace(kept.config, groups=GroupPlan(3, "median", redrawn=True))
    seen = registry.federation(federation)
    assert graph_seed(redrawn, registry, federation, seen, since=0) == registry.opening_block(federation, seen, since=0) != seed
    attempt.graph_seed = next(other for other in (bytes([n]) * 32 for n in range(64)) if _apart(other, groups))
    for hospital in nine:
        hospital.poll()
    stand_in.close(federation)
    for hospital in nine:
        hospital.poll()
    with pytest.raises(BelowThresholdError):
        stand_in.close(federation)


def test_a_sites_rule_on_survivors_is_about_the_sum_that_is_opened() -> None:
    """In groups of three that is the sum of three, however many the round has."""
    config = FederationConfig.parse(_document())
    SitePolicy(min_survivors=3).check(config)
    with pytest.raises(PolicyError, match="survivors in a sum: expected at least 4, the federation has 3"):
        SitePolicy(min_survivors=4).check(config)


def _document() -> dict[str, Any]:
    members = [{"address": f"0x{number:040x}", "dataset": number} for number in range(1, MEMBERS + 1)]
    return config_of([], "training", members=members, groups=MEDIAN, threshold=6, min_survivors=6)


def _apart(seed: bytes, groups: tuple[tuple[int, ...], ...]) -> bool:
    return not set(groups) & set(draw_groups(seed, MEMBERS, 3))


def _weights(kept: Any) -> Any:
    return flatten(kept.config.training, read_model(kept.config.training, kept.content, kept.model))
