"""Documents say which test shows a claim: those tests exist, and figures that are repeated are those that were measured."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONTRACTS = ROOT / "contracts" / "README.md"
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), CONTRACTS]
# As in contracts/gas: what the gate lets through is no other figure.
TOLERANCE = 0.05


def existing() -> set[str]:
    """Names of all tests, of pytest and of forge and halmos."""
    names: set[str] = set()
    for folder, pattern in (("tests", "*.py"), ("contracts/test", "*.sol")):
        for file in (ROOT / folder).rglob(pattern):
            names |= set(re.findall(r"^\s*(?:async )?(?:def|function) (\w+)", file.read_text(encoding="utf-8"), re.MULTILINE))
    return names


def named(text: str) -> set[str]:
    """Tests that a document names, by themselves or behind a path."""
    return set(re.findall(r"`(?:[\w./-]+::)?((?:test|testFuzz|invariant|check)_\w+)`", text))


def files_named(text: str) -> set[str]:
    """Files and folders beside the contracts that their README names."""
    return set(re.findall(r"`((?:src|test|gas|audit|script)/[\w./]*)`", text))


def rows(text: str, head: str) -> list[list[str]]:
    """Cells of every row of the tables with this head."""
    tables = re.findall(rf"^\| {re.escape(head)} \|\n\|[-|]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for table in tables for line in table.splitlines()]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_test_that_is_named_exists(document: Path) -> None:
    assert named(document.read_text(encoding="utf-8")) - existing() == set()


def test_every_law_of_the_contracts_names_a_test() -> None:
    text = CONTRACTS.read_text(encoding="utf-8")
    laws = rows(text, "invariant | test")
    assert len(laws) > 50
    for cells in laws:
        assert len(cells) == 2, cells
        assert named(cells[1]) or re.search(r"`tests?/", cells[1]), cells[0]
    assert [name for name in files_named(text) if not (CONTRACTS.parent / name).exists()] == []


def test_every_contract_is_in_the_tree() -> None:
    listed = set(re.findall(r"\b(\w+)\.sol\b", CONTRACTS.read_text(encoding="utf-8").split("```")[1]))
    assert listed == {path.stem for path in (ROOT / "contracts" / "src").glob("*.sol")}


def test_gas_is_what_the_snapshot_says() -> None:
    snapshot = json.loads((ROOT / "contracts" / "gas" / "snapshot.json").read_text(encoding="utf-8"))
    figures = rows(CONTRACTS.read_text(encoding="utf-8"), "call | gas")
    assert figures
    for name, gas in figures:
        assert int(gas.replace(",", "")) == pytest.approx(snapshot[name.strip("`")], rel=TOLERANCE), name


def test_what_does_not_exist_is_found() -> None:
    text = "| a | b |\n|---|---|\n| never twice | `test_never_written`, `tests/x.py::check_z`, `testFuzz_y` |\n"
    assert named(text) - existing() == {"test_never_written", "check_z", "testFuzz_y"}
    assert rows(text, "a | b") == [["never twice", "`test_never_written`, `tests/x.py::check_z`, `testFuzz_y`"]]
