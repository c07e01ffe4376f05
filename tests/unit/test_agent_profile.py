"""Direct identifiers are refused, quasi-identifiers are counted, and clinical columns are left alone."""

import pytest

from rexis.agent.profile import column_type, profile_table
from rexis.agent.table import Table

ROWS = 40


def table_of(name: str, values: list[str]) -> Table:
    return Table((name,), tuple((value,) for value in values))


def refused_rules(table: Table) -> list[str]:
    return [finding.rule for finding in profile_table(table).refused]


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("Patient Name", "x", "names (A)"),
        ("last_name", "x", "names (A)"),
        ("home-address", "x", "street address (B)"),
        ("Phone Number", "1", "telephone numbers (D)"),
        ("fax", "1", "fax numbers (E)"),
        ("e-mail", "x", "e-mail addresses (F)"),
        ("SSN", "1", "social security numbers (G)"),
        ("MRN", "1", "medical record numbers (H)"),
        ("insurance_number", "1", "health plan numbers (I)"),
        ("account_no", "1", "account numbers (J)"),
        ("passport_number", "1", "certificate or licence numbers (K)"),
        ("license plate", "1", "vehicle identifiers (L)"),
        ("device_serial", "1", "device identifiers (M)"),
        ("homepage", "x", "web addresses (N)"),
        ("IP", "x", "IP addresses (O)"),
        ("fingerprint", "x", "biometric identifiers (P)"),
        ("photo", "x", "photographs (Q)"),
        ("patient_id", "1", "unique identifying numbers (R)"),
    ],
)
def test_each_safe_harbor_class_is_found_by_its_name(name: str, value: str, rule: str) -> None:
    assert refused_rules(table_of(name, [value] * ROWS)) == [f"direct identifier: {rule}"]


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        ("ask anna.b@hospital.example first", "e-mail addresses (F)"),
        ("078-05-1120", "social security numbers (G)"),
        ("see https://pacs.example/study/1", "web addresses (N)"),
        ("10.20.30.40", "IP addresses (O)"),
        ("call +41 44 123 45 67", "telephone numbers (D)"),
        ("044 123 45 67", "telephone numbers (D)"),
        ("9b2f6a34-6a0c-4a58-9d4f-0f2f3d1c7a11", "unique identifying numbers (R)"),
    ],
)
def test_one_identifying_value_among_many_is_enough(value: str, rule: str) -> None:
    assert refused_rules(table_of("remark", ["none", "stable"] * ROWS + [value])) == [f"direct identifier: {rule}"]


def test_numbers_that_count_the_rows_are_refused() -> None:
    assert refused_rules(table_of("entry", [str(1000 + i) for i in range(ROWS)]))
    assert refused_rules(table_of("sample_no", [str(7 * i) for i in range(ROWS)]))
    assert refused_rules(table_of("code", [f"AX{i * i}" for i in range(ROWS)]))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("drug_name", ["aspirin", "ramipril"]),
        ("chol", [str(i) for i in range(100, 400, 7)]),
        ("oldpeak", [f"{i / 7:.3f}" for i in range(60)]),
        ("diagnosis", ["I21.9", "E11.65"]),
        ("device_type", ["stent", "pacemaker"]),
        ("email_consent", ["yes", "no"]),
        ("version", ["1.2.3", "1.2.4"]),
        ("dose", ["012 mg", "024 mg"]),
        ("hospital", ["A", "B"]),
    ],
)
def test_clinical_columns_are_not_refused(name: str, values: list[str]) -> None:
    assert refused_rules(table_of(name, values * 3 if len(values) < ROWS else values)) == []


@pytest.mark.parametrize(
    ("name", "values", "rule"),
    [
        ("admission", ["2021-03-04", "2021-03-05"], "dates other than the year (C)"),
        ("zip", ["8001", "8002"], "places smaller than a state (B)"),
        ("age", ["50", "91"], "ages above 89 (C)"),
        ("history", ["the patient came in the evening and was sent home after two hours"], "free text can name anybody"),
    ],
)
def test_the_rest_of_the_rule_is_a_warning(name: str, values: list[str], rule: str) -> None:
    profile = profile_table(table_of(name, values * ROWS), minimum_k=2)
    assert [finding.rule for finding in profile.findings] == [rule]
    assert profile.refused == ()


def test_age_89_is_not_above_89() -> None:
    assert profile_table(table_of("age", ["89"] * ROWS)).findings == ()


def test_k_is_the_smallest_group_over_the_quasi_identifiers() -> None:
    rows = [("50", "m", "1"), ("50", "m", "2"), ("60", "f", "3"), ("60", "f", "4"), ("60", "f", "5"), ("70", "f", "6")]
    profile = profile_table(Table(("age", "sex", "chol"), tuple(rows)))
    assert profile.quasi_identifiers == ("age", "sex")
    assert (profile.k, profile.unique_rows) == (1, 1)
    assert "has 1 row(s), fewer than 10" in profile.findings[-1].rule
    by_sex = profile_table(Table(("age", "sex", "chol"), tuple(rows)), quasi_identifiers=["sex"], minimum_k=2)
    assert (by_sex.k, by_sex.unique_rows, by_sex.findings) == (2, 0, ())
    nobody = profile_table(Table(("age", "sex", "chol"), tuple(rows)), quasi_identifiers=[])
    assert (nobody.k, nobody.findings) == (6, ())


def test_wrong_arguments_are_the_callers_mistake() -> None:
    table = table_of("age", ["1"])
    with pytest.raises(ValueError, match="no column weight"):
        profile_table(table, quasi_identifiers=["weight"])
    with pytest.raises(ValueError, match="hides nobody"):
        profile_table(table, minimum_k=1)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["TRUE", "false"], "boolean"),
        (["0", "-12"], "integer"),
        (["0", "1.5", "1e-3"], "decimal"),
        (["2020-01-01", "3.4.2021", "2020-01-01T10:00:00Z"], "date"),
        (["0", "high"], "text"),
        ([], "empty"),
    ],
)
def test_column_types(values: list[str], expected: str) -> None:
    assert column_type(values) == expected


def test_a_hostile_cell_does_not_hang_the_patterns() -> None:
    profile_table(table_of("remark", ["a" * 100_000, "@" * 100_000, "1-" * 50_000, "0" * 100_000 + "x"]))
