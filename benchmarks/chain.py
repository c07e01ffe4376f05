"""The chain layer: what each call costs in gas, and what is lost while processes are killed (`specs/chain.md`, sections 4 and 10).

Gas is weighed on a chain of its own and is the same on every machine; a relayed call stands beside the same call sent by an account that
pays for itself. Operations are counted on the chain itself, after SIGKILL of chain, relay and index at seeded moments (`tests/campaign`).
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contracts.gas.__main__ import both_ways, measure

ROOT = Path(__file__).parents[1]
# With this seed each of the three dies within the first three kills.
SEED, KILLS, QUICK_KILLS = 16, 30, 6


def run(*, quick: bool) -> dict[str, Any]:
    """Gas by call, relayed over sent, and the counts of a campaign.

    Raises:
        subprocess.CalledProcessError: the campaign did not come to an end.
    """
    gas = measure()
    return {"gas": gas, "relayed_over_sent": relayed_over_sent(gas)} | campaign(QUICK_KILLS if quick else KILLS)


def relayed_over_sent(gas: Mapping[str, int]) -> dict[str, float]:
    """Gas of a relayed call as a multiple of the same call sent, where both were weighed."""
    return {name: gas[f"{name}, relayed"] / gas[f"{name}, sent"] for name in both_ways(gas)}


def campaign(kills: int) -> dict[str, Any]:
    """Kill so often, and count. `landed` and `refused` (for a reason that the chain confirms) make up the operations if none is lost.

    Raises:
        subprocess.CalledProcessError: it did not come to an end.
    """
    with tempfile.TemporaryDirectory(prefix="rexis-benchmark-") as folder:
        kept = Path(folder) / "campaign.json"
        command = [sys.executable, "-m", "tests.campaign", "chain", "--kills", str(kills), "--seed", str(SEED), "--json", str(kept)]
        ended = subprocess.run(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL, check=False)
        # It also exits with 1 where it has counted something lost: that is a figure.
        if not kept.exists():
            ended.check_returncode()
        counted = json.loads(kept.read_text(encoding="utf-8"))
    return {
        "operations": counted["promised"],
        "landed": counted["landed"],
        "refused": counted["refused_with_a_true_reason"],
        "lost": counted["lost"],
        "duplicated": counted["duplicated"],
        "faults": len(counted["faults"]) + len(counted["broken_streams"]),
        "kills": counted["kills"],
        "seed": SEED,
    }
