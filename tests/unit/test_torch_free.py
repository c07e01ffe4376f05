"""The API processes of marketplace and verifier, and everything that they and an institution's command line stand on, never load torch.

In a fresh interpreter: import-linter does not see what a parent package imports.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
# In the order in which they build on each other, so that the first one named is the culprit.
MODULES = (
    "rexis.commitments",
    "rexis.protocol",
    "rexis.chain",
    "rexis.client",
    "rexis.cli.command",
    "services.verifier.app",
    "services.verifier.background",
    "services.marketplace.app",
    "services.marketplace.background",
    "services.aggregator.app",
    "services.trainer.app",
)
# A package by itself says little: all its modules are imported.
PROGRAM = """
import importlib, pkgutil, sys

for name in sys.argv[1:]:
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(getattr(package, "__path__", []), name + "."):
        importlib.import_module(module.name)
    if "torch" in sys.modules:
        sys.exit(f"{name} loads torch")
"""


def test_importing_them_leaves_torch_alone() -> None:
    command = [sys.executable, "-c", PROGRAM, *MODULES]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
