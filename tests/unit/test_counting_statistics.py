"""Tables of counts and survival counts: what a site's rows become, what their sum says, and what is refused on the way."""

import json
import xml.etree.ElementTree as ElementTree
from collections import Counter
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from rexis.agent.federation.counting import check_table, count_rows, rest_of, statistic_vector
from rexis.agent.table import Table
from rexis.encoding import canonical_json, to_hex
from rexis.errors import MalformedMessageError, PolicyError, UnexpectedMessageError
from rexis.pages.charts import Curve, curves, standalone
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.statistics_plans import SurvivalPlan, TablePlan, parse_statistics
from rexis.secagg.privacy import check_claim, count_variance, declared_micro, round_event
from rexis.secagg.statistics import ContingencyTable, SurvivalCounts, decode_statistic, parse_statistic
from rexis.secagg.statistics.association import odds_ratio, pearson
from rexis.secagg.statistics.chi_squared import tail
from rexis.secagg.statistics.counts import decode_counts, encode_counts
from rexis.secagg.statistics.survival_curves import curves as survival_curves
from rexis.secagg.statistics.survival_curves import log_rank
from tests.unit.counting_plans import CONFIG, NOISE, SURVIVAL, TABLE, config_of, noisy

VECTOR = json.loads((Path(__file__).parents[1] / "vectors" / "federation_config.json").read_text())
COLUMNS = ("age", "sex", "months", "dead", "arm")


def test_an_independent_reference_counts_the_same() -> None:
    for kind in ("table", "survival"):
        vector = VECTOR[kind]
        config = FederationConfig.parse(vector["config"])
        assert config.document() == vector["config"]
        assert (to_hex(config.digest), to_hex(config.statistic_digest)) == (vector["configHash"], vector["statistic"])
        rows = tuple(tuple(row) for times, row in vector["rows"] for _ in range(times))
        sent = statistic_vector(config, Table(tuple(vector["columns"]), rows))
        assert to_hex(sent.astype("<u8").tobytes()) == vector["vector"]
        result = decode_statistic(config, sent)
        assert (result.document(), to_hex(result.digest)) == (vector["result"], vector["resultHash"])


def patients(seed: int, count: int) -> Table:
    """Rows with everything in them that tables have: numbers on an edge, values that no plan names, and none at all."""
    generator = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        age = str(generator.integers(30, 90)) if generator.random() > 0.05 else ["", "NA", "old"][generator.integers(3)]
        sex = ["F", "M", "F", "M", "F", "M", "x", "?"][generator.integers(8)]
        months = str(generator.choice([1.5, 6, 8, 12, 13.5, 24, 30])) if generator.random() > 0.05 else ["", "-3"][generator.integers(2)]
        rows.append((age, sex, months, str(generator.choice(["0", "1", "1", "9"])), str(generator.choice(["A", "B", "A", "B", "C"]))))
    return Table(COLUMNS, tuple(rows))


SITES = tuple(patients(seed, count) for seed, count in ((1, 400), (2, 300), (3, 700)))
POOLED = Table(COLUMNS, tuple(row for site in SITES for row in site.rows))


def summed(config: FederationConfig) -> np.ndarray[Any, np.dtype[np.uint64]]:
    total = np.zeros(config.length, dtype=np.uint64)
    for site in SITES:
        total += statistic_vector(config, site)
    return total


def test_a_table_of_all_sites_is_that_of_the_pooled_rows() -> None:
    config = config_of({**TABLE, "minimum_cell": 5})
    found = decode_statistic(config, summed(config))
    assert isinstance(found, ContingencyTable)

    def cell(row: tuple[str, ...]) -> tuple[str, str]:
        age = "missing" if row[0] in ("", "NA") else "other" if row[0] == "old" else "low" if float(row[0]) < 50 else "mid"
        if age == "mid" and float(row[0]) >= 65:
            age = "high"
        return age, row[1] if row[1] in "FM" else "missing" if row[1] == "?" else "other"

    by_site = [Counter(map(cell, site.rows)) for site in SITES]
    names = [("low", "mid", "high", "other", "missing"), ("F", "M", "other", "missing")]
    for i, age in enumerate(names[0]):
        for j, sex in enumerate(names[1]):
            counts = [each[age, sex] for each in by_site]
            is_named = i < 3 and j < 2
            assert not is_named or min(counts) >= 5
            # Of what the plan does not name, a site leaves small cells out.
            assert found.counts[i, j] == sum(count for count in counts if is_named or count >= 5), (age, sex)
    assert found.labels(0) == ("below 50", "50 to below 65", "from 65", "other", "missing")
    assert parse_statistic(config, json.loads(canonical_json(found.document()))).digest == found.digest


def test_each_row_is_in_one_cell_whatever_is_in_it() -> None:
    for plan in (TABLE, SURVIVAL, {**SURVIVAL, "group": {"column": "age", "above": "60"}}):
        parsed = parse_statistics({**plan, "minimum_cell": 5})
        assert isinstance(parsed, TablePlan | SurvivalPlan)
        for site in SITES:
            assert count_rows(parsed, site).sum() == len(site.rows)
    named = parse_statistics({**TABLE, "dimensions": [{"column": "sex", "levels": ["?", "F"]}]})
    assert isinstance(named, TablePlan)
    # A level that is named is no missing value.
    assert count_rows(named, POOLED)[0] == POOLED.column("sex").count("?")


def test_survival_counts_are_those_of_the_pooled_rows_on_the_grid() -> None:
    config = config_of(SURVIVAL)
    found = decode_statistic(config, summed(config))
    assert isinstance(found, SurvivalCounts)
    edges, left_out = [6.0, 12.0, 24.0], [0] * len(SITES)
    expected = {arm: {"events": [0, 0, 0], "censored": [0, 0, 0], "after": 0} for arm in "AB"}
    for number, site in enumerate(SITES):
        for _, _, months, dead, arm in site.rows:
            if months in ("", "-3") or dead == "9" or arm == "C":
                left_out[number] += 1
                continue
            group: dict[str, Any] = expected[arm]
            later = [place for place, edge in enumerate(edges) if float(months) <= edge]
            if later:
                group["events" if dead == "1" else "censored"][later[0]] += 1
            else:
                group["after"] += 1
    assert found.document()["groups"] == [expected["A"], expected["B"]]
    assert found.left_out == sum(left_out)
    alive = [sum(expected["A"]["events"][j:] + expected["A"]["censored"][j:]) + expected["A"]["after"] for j in range(3)]
    assert found.at_risk[0].tolist() == alive
    assert parse_statistic(config, json.loads(canonical_json(found.document()))).digest == found.digest


# Remission of leukaemia in weeks, with 6-mercaptopurine and with placebo; + is censored (Freireich et al., Blood 1963).
MERCAPTOPURINE = "6 6 6 6+ 7 9+ 10 10+ 11+ 13 16 17+ 19+ 20+ 22 23 25+ 32+ 32+ 34+ 35+"
PLACEBO = "1 1 2 2 3 4 4 5 5 8 8 8 8 11 11 12 12 15 17 22 23"


def remission(edges: list[int]) -> SurvivalCounts:
    rows = [
        (each.rstrip("+"), "0" if "+" in each else "1", arm)
        for arm, line in (("A", MERCAPTOPURINE), ("B", PLACEBO))
        for each in line.split()
    ]
    plan = parse_statistics({**SURVIVAL, "edges": [str(edge) for edge in edges]})
    assert isinstance(plan, SurvivalPlan)
    return SurvivalCounts.of(plan, count_rows(plan, Table(("months", "dead", "arm"), tuple(rows))))


def test_curves_and_log_rank_of_a_textbook_where_the_times_are_on_the_grid() -> None:
    counts = remission(list(range(1, 36)))
    treated, placebo = survival_curves(counts)
    # Kalbfleisch and Prentice, table 1.1 and section 1.4: survival and standard error by Greenwood's formula.
    for week, survival, error in ((6, 0.857, 0.0764), (7, 0.807, 0.0869), (10, 0.753, 0.0963), (13, 0.690, 0.107), (23, 0.448, 0.135)):
        assert treated.survival[week - 1] == pytest.approx(survival, abs=5e-4)
        width = 1.959964 * error / treated.survival[week - 1] / abs(np.log(treated.survival[week - 1]))
        assert treated.low[week - 1] == pytest.approx(treated.survival[week - 1] ** np.exp(width), abs=2e-3)
        assert treated.high[week - 1] == pytest.approx(treated.survival[week - 1] ** np.exp(-width), abs=2e-3)
    assert (treated.median, placebo.median) == (23.0, 8.0)
    hazard = 3 / 21 + 1 / 17 + 1 / 15 + 1 / 12 + 1 / 11 + 1 / 7 + 1 / 6
    assert treated.hazard[-1] == pytest.approx(hazard, abs=1e-12)
    assert placebo.survival[22:].tolist()[0] == 0
    # Nobody is at risk any more, so nothing is said.
    assert np.isnan(placebo.survival[23:]).all()
    assert np.isnan(placebo.low[22])
    test = log_rank(counts)
    assert test is not None
    assert (test.statistic, test.degrees) == (pytest.approx(16.79, abs=0.005), 1)
    assert test.p == pytest.approx(4.17e-5, rel=0.01)


def test_curves_are_those_of_rows_rounded_up_to_the_grid_computed_patient_by_patient() -> None:
    edges = [6.0, 12.0, 24.0]
    config = config_of(SURVIVAL)
    counts = decode_statistic(config, summed(config))
    assert isinstance(counts, SurvivalCounts)
    rows = [(float(row[2]), row[3] == "1", row[4]) for row in POOLED.rows if row[2] not in ("", "-3") and row[3] != "9" and row[4] != "C"]
    rounded = [(min([e for e in edges if time <= e], default=np.inf), ill and time <= 24, arm) for time, ill, arm in rows]
    observed, expected, variance = 0, 0.0, 0.0
    for place, arm in enumerate("AB"):
        survival, greenwood, hazard = 1.0, 0.0, 0.0
        for edge, seen in zip(edges, survival_curves(counts)[place].survival, strict=True):
            n = sum(time >= edge for time, _, group in rounded if group == arm)
            d = sum(time == edge and ill for time, ill, group in rounded if group == arm)
            survival, greenwood, hazard = survival * (1 - d / n), greenwood + d / (n * (n - d)), hazard + d / n
            assert seen == pytest.approx(survival, abs=1e-12)
        last = survival_curves(counts)[place]
        width = stats.norm.ppf(0.975) * np.sqrt(greenwood) / abs(np.log(survival))
        assert (last.low[-1], last.high[-1], last.hazard[-1]) == pytest.approx(
            (survival ** np.exp(width), survival ** np.exp(-width), hazard), abs=1e-12
        )
    for edge in edges:
        n, n1 = (sum(time >= edge for time, _, group in rounded if group in arms) for arms in ("AB", "A"))
        d, d1 = (sum(time == edge and ill for time, ill, group in rounded if group in arms) for arms in ("AB", "A"))
        observed, expected = observed + d1, expected + d * n1 / n
        variance += d * n1 / n * (1 - n1 / n) * (n - d) / (n - 1)
    test = log_rank(counts)
    assert test is not None
    assert test.statistic == pytest.approx((observed - expected) ** 2 / variance, rel=1e-12)


def test_log_rank_of_three_groups_and_of_nothing_to_compare() -> None:
    plan = parse_statistics({**SURVIVAL, "edges": ["1", "2"], "group": {"column": "arm", "levels": ["A", "B", "C"]}})
    assert isinstance(plan, SurvivalPlan)
    # By hand: 3 groups of 10; 2, 5, 5 events at edge 1; 4, 2, 3 of 8, 5, 5 at edge 2.
    counts = SurvivalCounts.of(plan, np.array([2, 4, 0, 0, 4, 5, 2, 0, 0, 3, 5, 3, 0, 0, 2, 0]))
    first, second = np.array([1, 1, 1]) / 3, np.array([8, 5, 5]) / 18
    difference = np.array([6, 7, 8]) - 12 * first - 9 * second
    spread = 12 * 18 / 29 * (np.diag(first) - np.outer(first, first)) + 9 * 9 / 17 * (np.diag(second) - np.outer(second, second))
    test = log_rank(counts)
    assert test is not None
    assert test.statistic == pytest.approx(float(difference @ np.linalg.pinv(spread) @ difference), rel=1e-10)
    assert test.degrees == 2
    assert log_rank(SurvivalCounts.of(plan, np.array([2, 4, 0, 0, 4, *[0] * 11]))) is None
    assert log_rank(SurvivalCounts.of(plan, np.array([0, 0, 3, 0, 4, 0, 0, 3, 0, 4, *[0] * 6]))) is None


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 9, 30])
def test_tests_agree_with_scipy(degrees: int) -> None:
    for x in (0.0, 0.3, 3.84, 25.0, 300.0):
        assert tail(x, degrees) == pytest.approx(stats.chi2.sf(x, degrees), rel=1e-9, abs=1e-300)
    counts = np.random.default_rng(degrees).integers(5, 60, size=(degrees + 1, 2))
    test, expected = pearson(counts), stats.chi2_contingency(counts, correction=False)
    assert test is not None
    assert (test.statistic, test.p, test.degrees) == (pytest.approx(expected.statistic), pytest.approx(expected.pvalue), degrees)


def test_an_odds_ratio_has_woolfs_interval() -> None:
    odds = odds_ratio(np.array([[15, 5], [10, 20]]))
    assert odds is not None
    error = np.sqrt(1 / 15 + 1 / 5 + 1 / 10 + 1 / 20)
    assert (odds.value, odds.low, odds.high) == pytest.approx((6.0, 6 * np.exp(-1.959964 * error), 6 * np.exp(1.959964 * error)))
    assert odds_ratio(np.array([[15, 0], [10, 20]])) is None
    assert odds_ratio(np.ones((2, 3), dtype=np.int64)) is None
    # A level that nobody has is no degree of freedom, and one column is no association.
    assert pearson(np.array([[15, 5], [10, 20], [0, 0]])) == pearson(np.array([[15, 5], [10, 20]]))
    assert pearson(np.array([[15, 0], [10, 0]])) is None


def test_a_site_with_a_small_named_cell_sends_nothing_and_does_not_say_which() -> None:
    config = config_of({**TABLE, "minimum_cell": 10})
    plan = config.statistics
    assert isinstance(plan, TablePlan)
    counts = np.full(config.length, 10)
    rest = rest_of(plan)
    counts[rest] = 3
    # Nobody is no small cell, and small cells of what is not named are left out.
    counts[0] = 0
    sent = encode_counts(config, counts, rest).view(np.int64)
    assert sent.tolist() == [0 if is_rest or place == 0 else 10 for place, is_rest in enumerate(rest)]
    for small in (1, 9):
        counts[1] = small
        with pytest.raises(PolicyError, match="rule on cells") as refused:
            encode_counts(config, counts, rest)
        assert str(refused.value).replace("10", "").count(str(small)) == 0
    with pytest.raises(PolicyError, match="rule on cells"):
        check_table(plan, patients(1, 60))
    with pytest.raises(MalformedMessageError, match="lacks the columns age"):
        count_rows(plan, Table(("sex",), (("F",),)))


def test_sums_that_honest_sites_can_not_have_made_are_shown_to_nobody() -> None:
    for plan in (TABLE, SURVIVAL):
        config = config_of(plan)
        honest = np.full(config.length, 7, dtype=np.uint64)
        decode_statistic(config, honest)
        for wrong in (4, 2**64 - 1, 2**63, 2**53):
            total = honest.copy()
            total[3] = wrong
            with pytest.raises(MalformedMessageError, match="wrong vector"):
                decode_statistic(config, total)
        with pytest.raises(ValueError, match="expected a sum of"):
            decode_statistic(config, honest[1:])
        with pytest.raises(ValueError, match="64 bits"):
            decode_statistic(config, honest.astype(np.uint32))


def test_result_documents_are_read_strictly() -> None:
    config = config_of(TABLE)
    document = decode_statistic(config, np.full(config.length, 7, dtype=np.uint64)).document()
    cells = document["cells"]
    for change in (
        {"cells": cells[1:]},
        {"cells": [4, *cells[1:]]},
        {"cells": [-7, *cells[1:]]},
        {"cells": [7.0, *cells[1:]]},
        {"cells": [True, *cells[1:]]},
        {"cells": [2**53, *cells[1:]]},
        {"cells": {}},
        {"version": 1.0},
        {"statistic": "survival"},
        {"more": 1},
    ):
        with pytest.raises(MalformedMessageError):
            parse_statistic(config, {**document, **change})
    config = config_of(SURVIVAL)
    document = decode_statistic(config, np.full(config.length, 7, dtype=np.uint64)).document()
    for place, value in (("events", [7, 7]), ("censored", [7, 7, 4]), ("after", "7"), ("more", 1)):
        changed = deepcopy(document)
        changed["groups"][1][place] = value
        with pytest.raises(MalformedMessageError):
            parse_statistic(config, changed)
    for change in ({"groups": document["groups"][:1]}, {"groups": 2}, {"left_out": None}, {"statistic": "table"}):
        with pytest.raises(MalformedMessageError):
            parse_statistic(config, {**document, **change})
    for value in (None, [], "table", 5):
        with pytest.raises(MalformedMessageError):
            parse_statistic(config, value)


@pytest.mark.parametrize(
    "plan", [TABLE, SURVIVAL, noisy(TABLE), noisy(SURVIVAL), {**SURVIVAL, "group": {"column": "age", "bands": ["50"]}}]
)
def test_a_plan_has_one_document(plan: dict[str, Any]) -> None:
    config = config_of(plan)
    assert config.document()["statistics"] == plan
    assert (config.ring_bits, config.rounds) == (64, 1)
    assert config.length == {"table": 5 * 4, "survival": 2 * 7 + 1}[plan["identifier"]]


@pytest.mark.parametrize(
    "change",
    [
        {"identifier": "tables"},
        {"identifier": ["table"]},
        {"identifier": "moments"},
        {"minimum_cell": 4},
        {"minimum_cell": True},
        {"minimum_cell": "10"},
        {"privacy": NOISE},
        {"dimensions": []},
        {"dimensions": [{"column": "a", "above": "1"}] * 2},
        {"dimensions": [{"column": name, "bands": [str(n) for n in range(30)]} for name in "abc"]},
        {"dimensions": [{"column": name, "above": "1"} for name in "abcd"]},
        {"dimensions": [{"column": "age", "bands": ["1e-99999999"]}]},
        {"scale_bits": 16},
    ],
)
def test_ill_formed_tables_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(MalformedMessageError):
        config_of({**TABLE, **change})


@pytest.mark.parametrize(
    "change",
    [
        {"edges": []},
        {"edges": ["12", "6"]},
        {"edges": ["6", "6.0"]},
        {"edges": ["-1", "6"]},
        {"edges": [6]},
        {"edges": ["NaN"]},
        {"edges": [str(n) for n in range(121)]},
        {"edges": [str(n) for n in range(1, 120)], "group": {"column": "arm", "levels": [str(n) for n in range(20)]}},
        {"time": "arm"},
        {"time": ""},
        {"event": {"column": "dead", "events": ["1"], "censored": ["1"]}},
        {"event": {"column": "dead", "events": [], "censored": ["0"]}},
        {"event": {"column": "dead", "events": ["1", "1"], "censored": ["0"]}},
        {"event": {"column": "months", "events": ["1"], "censored": ["0"]}},
        {"event": "dead"},
        {"group": None},
    ],
)
def test_ill_formed_survival_plans_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(MalformedMessageError):
        config_of({**SURVIVAL, **change})


def test_what_a_rule_for_counts_needs_of_a_federation() -> None:
    without = {name: value for name, value in TABLE.items() if name != "minimum_cell"}
    with pytest.raises(MalformedMessageError, match="rule minimum_cell or the rule privacy"):
        config_of(without)
    with pytest.raises(MalformedMessageError, match="secagg\\+dp"):
        config_of(noisy(TABLE), protection="secagg")
    with pytest.raises(MalformedMessageError, match="secagg\\+dp"):
        config_of(TABLE, protection="secagg+dp")
    with pytest.raises(MalformedMessageError, match="knows its own noise"):
        config_of(noisy(TABLE), collusion_bound=0)
    with pytest.raises(MalformedMessageError, match="one patient"):
        config_of(TABLE, features={**CONFIG["features"], "patient": "id"})
    dp_sgd = {**NOISE, "mechanism": "dp-sgd", "clipping_norm": "1", "sampling_rate": "0.1"}
    with pytest.raises(MalformedMessageError, match="mechanism skellam"):
        config_of({**noisy(TABLE), "privacy": dp_sgd})


def test_noise_of_a_sum_is_what_is_accounted_for() -> None:
    config = config_of({**noisy(TABLE), "dimensions": [{"column": name, "bands": [str(n) for n in range(20)]} for name in "ab"]})
    plan = config.statistics
    assert isinstance(plan, TablePlan)
    # Two honest sites of three survivors, one of which may collude: together they have the noise of the plan.
    assert count_variance(config) * 2 == pytest.approx(2 * 4**2)
    empty = np.zeros(config.length, dtype=np.int64)
    total = sum((encode_counts(config, empty, rest_of(plan)) for _ in range(2)), np.zeros(config.length, dtype=np.uint64))
    noise = decode_counts(config, total)
    assert len(noise) == 529
    # Six standard errors.
    assert abs(noise.mean()) < 6 * np.sqrt(32 / 529)
    assert abs(noise.var() / 32 - 1) < 6 * np.sqrt(2.1 / 529)
    event = round_event(config)
    assert event is not None
    assert vars(event) == {"l1": 2.0, "l2": np.sqrt(2), "variance": pytest.approx(32.0), "count": 1}
    check_claim(config)
    assert 1_000_000 < declared_micro(config, 1) < 2_000_000
    with pytest.raises(UnexpectedMessageError, match="expected more noise"):
        check_claim(config_of({**noisy(TABLE), "privacy": {**NOISE, "epsilon": "1"}}))
    # Negative counts are of noise, and only of noise.
    document = decode_statistic(config, total).document()
    assert parse_statistic(config, document).document() == document
    assert min(document["cells"]) < 0


def test_noisy_counts_give_figures_and_claim_no_certainty() -> None:
    config = config_of(noisy(SURVIVAL))
    counts = decode_statistic(config, np.array([8, 2**64 - 3, 5, 2, 2, 2, 4, *[0] * 7, 3], dtype=np.uint64))
    assert isinstance(counts, SurvivalCounts)
    curve, empty = survival_curves(counts)
    assert curve.events.tolist() == [8, 0, 5]
    assert curve.at_risk.tolist() == [23, 13, 11]
    assert curve.survival[-1] == pytest.approx(15 / 23 * 6 / 11)
    assert np.isnan(curve.low).all()
    assert np.isnan(empty.survival).all()
    assert log_rank(counts) is None


def test_a_drawing_is_a_file_of_its_own_and_names_are_text() -> None:
    chart = curves([Curve("<b>", ((0.0, 1.0), (6.0, 0.5)))], x_name="months", y_name="survival")
    drawn = standalone(chart, ["<b>"])
    root = ElementTree.fromstring(drawn)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "<b>" in [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
