"""The example's table is FLamby's Fed-Heart-Disease, and the example's policy and columns pass the agent's own checks."""

import hashlib
from datetime import date
from pathlib import Path
from random import Random

import pytest

from examples.heart.hospitals import COUNTS, HEART, hospital_rows, write_hospital
from rexis.agent.dataset import open_dataset, read_policy
from rexis.agent.metadata import Description

# Counts of rows and of `num > 0`, as FLamby's data card and specs/data.md give them.
DISEASED = {"Cleveland": 139, "Hungary": 98, "Switzerland": 45, "VA Long Beach": 101}
HEART_SHA256 = "812bc65ed7125ea3266c8b057bc3459f6151271cdce158776ff7179311a0493e"


def test_the_file_is_what_prepare_makes_of_the_source() -> None:
    assert hashlib.sha256(HEART.read_bytes()).hexdigest() == HEART_SHA256


@pytest.mark.parametrize("hospital", list(COUNTS))
def test_each_hospital_has_its_rows(hospital: str) -> None:
    columns, rows = hospital_rows(hospital)
    assert "hospital" not in columns
    assert len(rows) == {"Cleveland": 303, "Hungary": 261, "Switzerland": 46, "VA Long Beach": 130}[hospital]
    assert sum(int(row[columns.index("num")]) > 0 for row in rows) == DISEASED[hospital]
    assert all("" not in row for row in rows)


def test_an_unknown_hospital_is_refused() -> None:
    with pytest.raises(ValueError, match="expected one of Cleveland"):
        hospital_rows("Zurich")


@pytest.mark.parametrize("hospital", list(COUNTS))
def test_each_table_may_be_registered_and_its_mock_data_are_no_patients(tmp_path: Path, hospital: str) -> None:
    table = tmp_path / "heart.csv"
    write_hospital(hospital, table)
    policy = read_policy(HEART.with_name("policy.yaml"))
    dataset = open_dataset(table, policy, Description("Heart", "", date(2026, 11, 21)))
    dataset.require_registrable()
    assert dataset.profile.quasi_identifiers == ("age", "sex")
    assert [field["name"] for field in dataset.metadata["recordSet"][0]["field"]] == list(dataset.table.columns)
    real = {",".join(row) for row in dataset.table.rows}
    mock = dataset.mock_csv(Random(1)).splitlines()
    assert mock[0] == ",".join(dataset.table.columns)
    assert real.isdisjoint(mock[1:])
