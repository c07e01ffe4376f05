"""The API processes of marketplace and verifier, and everything that they and an institution's command line stand on, never load torch.

In a fresh interpreter: import-linter does not see what a parent package imports.
"""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = (
    "services.marketplace.app",
    "services.marketplace.background",
    "services.verifier.app",
    "services.trainer.app",
    "services.aggregator.app",
    "rexis.commitments",
    "rexis.protocol",
    "rexis.chain",
    "rexis.client",
    "rexis.cli.command",
)


@pytest.mark.parametrize("module", MODULES)
def test_importing_it_leaves_torch_alone(module: str) -> None:
    # Packages of which the name alone says little are imported with all their modules.
    program = f"""
import importlib, pkgutil, sys
found = importlib.import_module({module!r})
for each in pkgutil.walk_packages(getattr(found, "__path__", []), {module!r} + "."):
    importlib.import_module(each.name)
print("torch" in sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "False"
