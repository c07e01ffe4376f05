"""What stays at a site and what a server remembers: SCAFFOLD, personal layers and early stopping, with drop-outs, restarts and lies.

Agent, journal and chain are real; the aggregator is the stand-in that lies when it is told to.
"""

from decimal import Decimal
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from rexis.agent.federation.contribution import model_file_spec, read_model
from rexis.agent.federation.final_rounds import FinalRounds
from rexis.agent.federation.founding import FederationPlan
from rexis.agent.federation.holdout import hold_back, holdout_key
from rexis.agent.federation.registry import Registry
from rexis.agent.federation.site_policy import SitePolicy
from rexis.agent.federation.site_states import SiteState, SiteStates
from rexis.agent.table import Table
from rexis.encoding import to_hex
from rexis.errors import PrivacyError, UnexpectedMessageError
from rexis.protocol.batch import read_file
from rexis.protocol.federation_config import FederationConfig
from rexis.secagg.payloads import decode_update
from tests.services.federation_stand_in import COUNTS, Hospital, StandIn, config_of, play

SCAFFOLD = {"name": "scaffold", "learning_rate": "1"}
NETWORK = {"version": 1, "family": "mlp", "config": {"inputs": 2, "hidden": [3], "outputs": 1, "activation": "tanh"}}


def joined(stand_in: StandIn, hospitals: list[Hospital], **changes: Any) -> bytes:
    federation = stand_in.found(FederationPlan(FederationConfig.parse(config_of(hospitals, "training", **changes)), seed=3))
    for hospital in hospitals:
        hospital.join(federation)
    return federation


def round_of(stand_in: StandIn, federation: bytes, hospitals: list[Hospital], without: int | None = None) -> None:
    """One round; hospital `without` commits, and its vector never comes."""
    stand_in.open_round(federation)
    play(stand_in, federation, hospitals, absent={} if without is None else {"masked": [without], "unmask": [without]})


def states(stand_in: StandIn, federation: bytes, hospitals: list[Hospital]) -> list[SiteState | None]:
    """What each hospital would go on from, once it has looked at the chain again."""
    plan, seen = stand_in.kept[federation].config.training, Registry(stand_in.chain).federation(federation)
    assert plan is not None
    for hospital in hospitals:
        assert hospital.duty is not None
        hospital.duty.rounds.settle(federation, seen)
    return [SiteStates(hospital.journal).current(federation, plan) for hospital in hospitals]


def weights_of(stand_in: StandIn, federation: bytes) -> dict[str, Any]:
    kept = stand_in.kept[federation]
    assert kept.config.training is not None
    return read_model(kept.config.training, kept.content, kept.model)


def tensors_of(config: FederationConfig, table: Table) -> tuple[Any, Any]:
    rows = config.features.encode(table.columns, table.rows)
    return torch.from_numpy(rows.inputs), torch.from_numpy(rows.labels).double()


def refused(hospital: Hospital, federation: bytes) -> list[str]:
    entries = hospital.journal.entries(subject=f"federation {to_hex(federation)}", limit=1000)
    return [str(entry.detail["reason"]) for entry in entries if entry.stage in ("refused", "dropped")]


def test_scaffold_is_the_papers_update_and_who_drops_out_keeps_its_control_variate(stand_in: StandIn, hospitals: list[Hospital]) -> None:
    """Against logistic regression written out in float64 with variates in the clear."""
    federation = joined(stand_in, hospitals, strategy=SCAFFOLD, clipping_norm="50", learning_rate="0.001", rounds=4)
    config = stand_in.kept[federation].config
    plan = config.training
    assert plan is not None
    rate, steps = float(plan.learning_rate), plan.steps
    start = weights_of(stand_in, federation)
    x = np.concatenate([start["0.weight"].ravel(), start["0.bias"]]).astype(np.float64)
    control, variates = np.zeros(3), np.zeros((4, 3))
    shares = np.array([plan.weight(count) for count in COUNTS], dtype=np.float64)
    tables = [tensors_of(config, hospital.table) for hospital in hospitals]
    for number, without in ((1, None), (2, 1), (3, None)):
        round_of(stand_in, federation, hospitals, without)
        changed = variates.copy()
        deltas = np.zeros((4, 3))
        for site, (inputs, labels) in enumerate(tables):
            y = x.copy()
            for _ in range(steps):
                error = 1 / (1 + np.exp(-(inputs.numpy() @ y[:2] + y[2]))) - labels.numpy()
                gradient = np.append(inputs.numpy().T @ error, error.sum()) / len(labels)
                y = y - rate * (gradient - variates[site] + control)
            deltas[site], changed[site] = y - x, variates[site] - control + (x - y) / (steps * rate)
        present = np.array([site != without for site in range(4)])
        x = x + (shares[present] @ deltas[present]) / shares[present].sum()
        variates[present] = changed[present]
        control = shares @ variates / shares.sum()
        found = weights_of(stand_in, federation)
        assert np.concatenate([found["0.weight"].ravel(), found["0.bias"]]) == pytest.approx(x, abs=2e-5)
        if number == 2:
            # It comes back from its journal alone, with the variate of round 1.
            hospitals[1].restart()
        for site, state in enumerate(states(stand_in, federation, hospitals)):
            assert state is not None
            assert state.variate == pytest.approx(variates[site], abs=2e-3), (number, site)
    # Variates differ in the tens: it is not by chance that they are the same.
    assert np.abs(variates).max() > 5
    assert all(not refused(hospital, federation) for hospital in hospitals if hospital is not hospitals[1])


def test_a_sum_or_metrics_other_than_the_chains_move_no_site(stand_in: StandIn, hospitals: list[Hospital]) -> None:
    stopping = {"holdout": "0.05", "patience": 2, "improvement": "0.001"}
    federation = joined(stand_in, hospitals, strategy=SCAFFOLD, stopping=stopping)
    round_of(stand_in, federation, hospitals)
    stand_in.open_round(federation)

    def lighter(value: Any) -> Any:
        return {"items": [{**each, "metrics": {**each["metrics"], "weight": 1}} for each in value["items"]]}

    lies: list[tuple[str, Any, str]] = [
        ("/sum", lambda content: content[:-8] + bytes(8), "opened sum of round 1"),
        ("/rounds", lighter, "metrics of round 1"),
        ("/rounds", lambda _value: {"items": []}, "shows none"),
    ]
    for hospital, (path, lie, words) in zip(hospitals, lies, strict=False):
        stand_in.lies = {path: lie}
        hospital.poll()
        (reason,) = refused(hospital, federation)
        assert words in reason
    stand_in.lies = {}
    hospitals[3].poll()
    assert refused(hospitals[3], federation) == []


def test_personal_layers_stay_at_each_hospital_and_in_no_vector(stand_in: StandIn, hospitals: list[Hospital]) -> None:
    federation = joined(stand_in, hospitals, model=NETWORK, personal=["2."], rounds=3)
    first = weights_of(stand_in, federation)
    config = stand_in.kept[federation].config
    assert config.length == 3 * 2 + 3 + 2
    round_of(stand_in, federation, hospitals)
    # Its own last layer was trained from the founder's; the global model still has the founder's.
    before = states(stand_in, federation, hospitals)
    for name, tensor in weights_of(stand_in, federation).items():
        assert (tensor == first[name]).all() == name.startswith("2."), name
    assert all(state is not None and set(state.personal) == {"2.weight", "2.bias"} for state in before)
    trained = {state.personal["2.weight"].tobytes() for state in before if state is not None}
    assert len(trained | {first["2.weight"].tobytes()}) == 5
    # Who drops out goes on from its own layer of the round before, also after a restart; nobody else's moved back.
    hospitals[2].restart()
    round_of(stand_in, federation, hospitals, without=2)
    after = states(stand_in, federation, hospitals)
    layers = [[state.personal["2.weight"] for state in each if state is not None] for each in (before, after)]
    moved = [bool((old != new).any()) for old, new in zip(*layers, strict=True)]
    assert moved == [True, True, False, True]
    # A site's own model is the global one with its layers in it.
    kept, duty = stand_in.kept[federation], hospitals[0].duty
    assert duty is not None
    assert config.training is not None
    content = duty.rounds.own_model(federation, config.training, kept.content, kept.model)
    own = read_file(BytesIO(content), model_file_spec(config.training), len(content))
    assert (own["0.weight"] == weights_of(stand_in, federation)["0.weight"]).all()
    assert after[0] is not None
    assert all((own[name] == tensor).all() for name, tensor in after[0].personal.items())
    # The file has them sealed: 12 bytes of a layer are found nowhere in it.
    for hospital, state in zip(hospitals, after, strict=True):
        assert state is not None
        files = [hospital.journal_file, hospital.journal_file.with_name(hospital.journal_file.name + "-wal")]
        assert all(state.personal["2.weight"].tobytes() not in path.read_bytes() for path in files if path.exists())


def test_rows_that_are_held_back_are_never_trained_on_and_end_training(stand_in: StandIn, hospitals: list[Hospital]) -> None:
    stopping = {"holdout": "0.25", "patience": 1, "improvement": "50"}
    federation = joined(stand_in, hospitals, stopping=stopping, rounds=9, weight_band=1, weight_cap=100)
    config = stand_in.kept[federation].config
    split = []
    for hospital in hospitals:
        membership = hospital.records.membership(federation)
        assert membership is not None
        split.append(hold_back(hospital.table, Decimal("0.25"), holdout_key(hospital.journal.sealer, membership.content_root)))
    # Of its twelve rows nine are left to train on.
    assert len(split[3][0].rows) == 9
    stand_in.open_round(federation)
    hospitals[3].poll()
    assert "at least 10 rows" in refused(hospitals[3], federation)[0]
    assert not [what for caller, what, _ in stand_in.received if caller == hospitals[3].signer.address]
    stand_in.abandon(federation)
    hospitals[3].policy = SitePolicy(examples=9)
    for hospital in hospitals:
        hospital.restart()
    for number in (1, 2):
        base = {name: torch.from_numpy(tensor.astype(np.float64)) for name, tensor in weights_of(stand_in, federation).items()}
        expected = [0.0, 0.0]
        for part in (0, 1):
            total = sum(len(each[part].rows) for each in split)
            for each in split:
                inputs, labels = tensors_of(config, each[part])
                margins = inputs @ base["0.weight"][0] + base["0.bias"]
                expected[part] += binary_cross_entropy_with_logits(margins, labels, reduction="sum").item() / total
        round_of(stand_in, federation, hospitals)
        mean = decode_update(config, stand_in.kept[federation].sums[-1])
        assert (mean.weight, mean.holdout_weight) == tuple(sum(len(each[part].rows) for each in split) for part in (0, 1))
        assert (mean.loss, mean.holdout_loss) == (pytest.approx(expected[0], abs=2e-3), pytest.approx(expected[1], abs=2e-3)), number
    registry = Registry(stand_in.chain)
    final = FinalRounds(registry, hospitals[0].client)
    final.check_end(federation, config, 2)
    with pytest.raises(UnexpectedMessageError, match="do not say that it converged"):
        FinalRounds(registry, hospitals[0].client).check_end(federation, config, 1)
    # All members find the same end: whoever opens another round gets nothing more.
    stand_in.open_round(federation)
    stand_in.received.clear()
    for hospital in hospitals:
        hospital.poll()
        assert "converged after round 2" in refused(hospital, federation)[-1]
    assert stand_in.received == []


def test_the_split_is_the_same_for_equal_rows_and_another_under_another_key() -> None:
    rows = tuple((str(number % 40), "x") for number in range(200))
    table = Table(("a", "b"), rows)
    trained, held = hold_back(table, Decimal("0.1"), b"k" * 32)
    assert 20 <= len(held.rows) <= 25
    assert not set(trained.rows) & set(held.rows)
    assert sorted(trained.rows + held.rows) == sorted(rows)
    assert hold_back(table, Decimal("0.1"), b"k" * 32) == (trained, held)
    assert hold_back(table, Decimal("0.1"), b"l" * 32) != (trained, held)
    with pytest.raises(PrivacyError, match="no row is left"):
        hold_back(Table(("a",), (("1",),) * 9), Decimal("0.1"), b"k" * 32)
