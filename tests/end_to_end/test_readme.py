"""The README's commands are run, so that they are true."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.local.platform import Platform
from services.local.settings import LocalSettings

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
GUIDES = ROOT / "docs" / "guides"
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


def commands_of(text: str) -> list[list[str]]:
    """The commands of each console block."""
    blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    return [[line[2:] for line in block.splitlines() if line.startswith("$ ")] for block in blocks]


BLOCKS = commands_of(README)


def run(commands: list[str], **environment: str) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    script = "set -eu\n" + "\n".join(commands)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("REXIS_", "MAKE", "MFLAGS"))}
    ran = subprocess.run(
        ["bash", "-c", script], cwd=ROOT, env={**inherited, "PATH": path, **environment}, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
    return ran.stdout


def test_the_readme_has_the_blocks_that_are_run_here() -> None:
    assert [len(block) for block in BLOCKS] == [1, 6]


def test_the_readmes_first_command_is_the_story() -> None:
    """Run by `.ci/run` after the tests, because it takes minutes; `test_story.py` tells it smaller, with its processes killed."""
    assert BLOCKS[0] == ["make demo"]
    assert "-m examples.heart" in run(["make --dry-run demo"])


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What a user's shell has while a platform runs."""
    with Platform.start(LocalSettings(data_dir=tmp_path_factory.mktemp("platform"))) as platform:
        urls = {f"REXIS_{name.upper()}_URL": url for name, url in platform.urls.items()}
        yield {"COLUMNS": "200", "REXIS_PASSPHRASE": "correct horse battery staple", **urls}


def test_an_institutions_commands_work(environment: dict[str, str], tmp_path: Path) -> None:
    shown = run(BLOCKS[1], **environment, REXIS_HOME=str(tmp_path))
    assert "Heart disease, four hospitals" in shown
    first = re.search(r"token +(\d+)", shown)
    again = re.search(r"token +(\d+)", run([BLOCKS[1][2]], **environment, REXIS_HOME=str(tmp_path)))
    assert first is not None
    assert again is not None
    assert again[1] == first[1], "registered twice, minted once"


def test_the_institutions_guide_works_line_by_line(environment: dict[str, str], tmp_path: Path) -> None:
    blocks = commands_of((GUIDES / "institution.md").read_text(encoding="utf-8"))
    assert len(blocks) == 3
    for block in blocks:
        run(block, **environment, REXIS_HOME=str(tmp_path))


def test_the_pharma_guides_code_works(environment: dict[str, str]) -> None:
    code = re.findall(r"```python\n(.*?)```", (GUIDES / "pharma.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(code) == 2
    run([f"python - <<'EOF'\n{''.join(code)}\nEOF"], **environment)


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in DOCUMENTS:
        named = re.findall(r"(?:`|^|\$ )make ([a-z0-9-]+)", document.read_text(encoding="utf-8"), re.MULTILINE)
        assert set(named) <= targets, document.name


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_and_named_files_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    missing = [link for link in links if not (document.parent / link).exists()]
    names = re.findall(r"`((?:rexis|services|contracts|tests|docs|deploy|examples|benchmarks)/[\w./-]+)`", text)
    missing += [name for name in names if not (ROOT / name).exists()]
    assert not missing
