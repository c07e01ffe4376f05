"""A verification that returns a value can be ignored: ours raise (SECURITY.md)."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(path for folder in ("rexis", "services") for path in (ROOT / folder).rglob("*.py"))


def functions(source: str) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def broken(source: str) -> list[str]:
    found = []
    for function in functions(source):
        returned = ast.unparse(function.returns) if function.returns is not None else "nothing stated"
        name = function.name.lstrip("_")
        if (name.startswith("verify") and returned != "None") or (name.startswith(("verify", "check")) and returned == "bool"):
            found.append(f"{function.name} returns {returned}")
    return found


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_verification_returns_a_value(module: Path) -> None:
    assert broken(module.read_text(encoding="utf-8")) == []


def test_the_rule_can_fail() -> None:
    assert broken("def verify_it(x) -> bool: ...") == ["verify_it returns bool"]
    assert broken("def check_it(x) -> bool: ...") == ["check_it returns bool"]
    assert broken("def check_it(x) -> None: ...") == []
