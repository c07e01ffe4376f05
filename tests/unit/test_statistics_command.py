"""What `rexis federation result` shows of a statistic: the counts, and what follows from them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rexis.cli.statistics import WITH_NOISE, print_result
from rexis.errors import UnexpectedMessageError
from rexis.protocol.federation_config import FederationConfig
from rexis.secagg.statistics import Result, decode_statistic
from tests.unit.counting_plans import SURVIVAL, TABLE, config_of, noisy

BY_SEX = {**TABLE, "dimensions": [{"column": "age", "above": "50"}, {"column": "sex", "levels": ["F", "M"]}]}
# Age by sex, each with other values and without one.
CELLS = [15, 5, 0, 0, 10, 20, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0]
# Two groups by three edges, and twelve who are in no curve.
FOLLOWED = [10, 8, 6, 5, 5, 0, 9, 20, 10, 0, 5, 0, 0, 7, 12]


def result_of(config: FederationConfig, counts: list[int]) -> Result:
    return decode_statistic(config, np.array(counts, dtype=np.int64).view(np.uint64))


def shown(capsys: pytest.CaptureFixture[str], config: FederationConfig, counts: list[int], **options: Any) -> str:
    print_result("0xfe", config, result_of(config, counts), **{"plot": None, "as_json": False, **options})
    return capsys.readouterr().out


def test_a_table_is_printed_with_its_test_and_odds_ratio(capsys: pytest.CaptureFixture[str]) -> None:
    config = config_of(BY_SEX)
    printed = shown(capsys, config, CELLS)
    lines = [line.split() for line in printed.splitlines()]
    assert ["above", "50", "10", "20", "0", "6"] in lines
    assert ["up", "to", "50", "15", "5", "0", "0"] in lines
    assert "chi-squared 8.333 with 1 degrees of freedom, p = 0.003892" in printed
    assert "Odds ratio 6.000, 95 % interval 1.693 to 21.262" in printed
    assert "fewer than 5" in printed
    figures = json.loads(shown(capsys, config, CELLS, as_json=True))["figures"]
    assert figures["odds_ratio"]["value"] == pytest.approx(6)
    assert figures["chi_squared"]["statistic"] == pytest.approx(25 / 3)
    single = shown(capsys, config_of({**BY_SEX, "dimensions": BY_SEX["dimensions"][:1]}), [15, 7, 0, 5])
    rows = [line.split() for line in single.splitlines()]
    assert rows[1:5] == [["up", "to", "50", "15"], ["above", "50", "7"], ["other", "0"], ["missing", "5"]]
    assert "chi-squared" not in single


def test_what_a_founder_wrote_is_text_also_where_it_reads_as_markup(capsys: pytest.CaptureFixture[str]) -> None:
    levels = {"column": "[/]", "levels": ["[/x]", "[red]"]}
    printed = shown(capsys, config_of({**BY_SEX, "dimensions": [levels, {**levels, "column": "[b]"}]}), CELLS)
    assert printed.count("[/x]") == printed.count("[red]") == 2
    assert "[/]" in printed
    printed = shown(capsys, config_of({**SURVIVAL, "group": levels}), FOLLOWED)
    assert "[/x]: median" in printed


def test_survival_is_printed_and_drawn(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config, drawing = config_of(SURVIVAL), tmp_path / "curves.svg"
    printed = shown(capsys, config, FOLLOWED, plot=drawing)
    assert "A: median 24, 9 followed beyond the last edge" in printed
    (row,) = [line.split() for line in printed.splitlines() if line.split()[:3] == ["6", "43", "10"]]
    survival, width = 33 / 43, np.exp(1.959964 * np.sqrt(10 / 43 / 33) / np.log(43 / 33))
    expected = [survival, survival**width, survival ** (1 / width), 10 / 43]
    assert [float(each) for each in row[3:] if each != "to"] == pytest.approx(expected, abs=1e-4)
    assert "Log-rank test: chi-squared" in printed
    assert "12 in no curve" in printed
    # A step down at each edge: 2 points to an edge and the first one, for each group.
    assert drawing.read_text().count("<circle") == 2 * (1 + 2 * 3) + 2
    figures = json.loads(shown(capsys, config, FOLLOWED, as_json=True))["figures"]
    assert [curve["name"] for curve in figures["curves"]] == ["A", "B"]
    assert figures["curves"][1]["events"] == [20, 10, 0]
    assert (figures["log_rank"]["degrees"], figures["log_rank"]["p"]) == (1, pytest.approx(0.0265, abs=1e-4))


def test_noise_is_said_and_nothing_is_claimed_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    printed = shown(capsys, config_of(noisy(BY_SEX)), [-3, *CELLS[1:]])
    assert WITH_NOISE.format(8.0) in printed
    assert "-3" in printed
    assert "chi-squared" not in printed
    figures = json.loads(shown(capsys, config_of(noisy(BY_SEX)), CELLS, as_json=True))["figures"]
    assert figures == {"chi_squared": None, "odds_ratio": None, "noise_deviation_at_most": pytest.approx(8.0)}
    printed = shown(capsys, config_of(noisy(SURVIVAL)), [-3, *FOLLOWED[1:]])
    assert WITH_NOISE.format(8.0) in printed
    assert "Log-rank" not in printed


def test_there_is_nothing_to_draw_of_a_table_and_no_colour_for_a_fifth_curve(tmp_path: Path) -> None:
    many = config_of({**SURVIVAL, "group": {"column": "arm", "levels": list("ABCDE")}})
    for config, counts in ((config_of(BY_SEX), CELLS), (many, [0] * 36)):
        with pytest.raises(UnexpectedMessageError, match="--plot draws"):
            print_result("0xfe", config, result_of(config, counts), plot=tmp_path / "curves.svg", as_json=False)
    assert not (tmp_path / "curves.svg").exists()
