"""What an institution installs: the wheel, in an environment where the repository is not on the path."""

import json
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return next(out.glob("rexis-*.whl"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel in it; only third-party packages are borrowed from this one."""
    home = tmp_path_factory.mktemp("institution")
    venv.create(home, with_pip=False)
    interpreter = home / "bin" / "python"
    site = Path(
        subprocess.run(
            [interpreter, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], check=True, capture_output=True, text=True
        ).stdout.strip()
    )
    # A path line in a .pth file is put on the path without reading the .pth files in it, so our editable install stays out.
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = [sys.executable, "-m", "pip", "--python", str(interpreter), "install", "-q", "--no-deps", "--no-index", str(wheel)]
    installed = subprocess.run(install, capture_output=True, text=True, check=False)
    assert installed.returncode == 0, installed.stderr
    return interpreter


def test_the_wheel_ships_the_library_only(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"rexis"}
    assert not [name for name in names if name.endswith((".sol", ".csv")) or "test" in name]
    assert "rexis/py.typed" in names


def test_abis_and_deployments_load_from_the_wheel(python: Path, tmp_path: Path) -> None:
    script = """
import json, rexis
from rexis.chain.artifacts import artifact
from rexis.chain.deployments import load
deployment = load(31337)
print(json.dumps({
    "where": rexis.__file__,
    "abi": sorted(entry["name"] for entry in artifact("DatasetRegistry").abi if entry["type"] == "event"),
    "contracts": sorted(deployment.contracts),
}))
"""
    ran = subprocess.run([python, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert Path(found["where"]).is_relative_to(python.parents[1])
    assert "DatasetRegistered" in found["abi"]
    assert {"DatasetRegistry", "Forwarder"} <= set(found["contracts"])


def test_its_command_runs_and_the_operators_command_is_not_there(python: Path, tmp_path: Path) -> None:
    ran = subprocess.run([python.parent / "rexis", "--help"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "dataset" in ran.stdout
    assert not (python.parent / "rexis-admin").exists()
    assert subprocess.run([python, "-c", "import services"], cwd=tmp_path, capture_output=True, check=False).returncode != 0
