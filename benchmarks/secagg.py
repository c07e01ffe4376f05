"""Secure aggregation beside Flower's SecAgg+, its plaintext FedAvg and the floor (`specs/secure-aggregation.md` 4).

Each cell is measured in processes of its own, ours and Flower's in turns, in CPU seconds: what else runs on the machine moves a figure, and
less a ratio. `total_s` is the work of all clients and the server; `client_s` the mean of the clients. Ours is the protocol that agents run:
signed messages that go as bytes and are checked by everybody who gets them, quantisation, digests of every vector, decoding. Flower's is
its workflow, which has no signatures, without a network format. Making an update, and writing a masked vector to disk, count for nobody.
"""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rexis.secagg.graph import smallest_degree

ROOT = Path(__file__).parents[1]
FLOWER = ROOT / ".venv" / "flower" / "bin" / "python"
REPEATS = 5
# What the others of a large roster would have to be, for a sparse graph to be safe at all.
COLLUDERS_OF_100 = 5


def cells(*, quick: bool) -> Iterator[dict[str, Any]]:
    """What is measured: institutions, parameters, drop-outs after the shares, neighbours (None: everybody), colluders, repetitions."""
    for d in (100_000, 1_000_000, 10_000_000):
        for n in (5, 10, 20):
            if not quick or (n, d) in ((5, 100_000), (20, 100_000), (20, 1_000_000)):
                main = (n, d) == (20, 1_000_000)
                yield {"n": n, "d": d, "dropouts": 0, "degree": None, "colluders": (n - 1) // 3, "repeats": REPEATS if main else 1}
    large = {"n": 100, "d": 100_000 if quick else 1_000_000, "dropouts": 10, "colluders": COLLUDERS_OF_100, "repeats": 1}
    yield large | {"degree": None}
    yield large | {"degree": smallest_degree(100, COLLUDERS_OF_100, 10)}


def run(*, quick: bool) -> dict[str, Any]:
    """All cells; without Flower's environment its figures are left out, and the reason stands under `left_out`."""
    left_out = {}
    if not FLOWER.exists():
        left_out["flower"] = "Flower is not installed: make setup-bench"
    elif quick:
        left_out["flower at n = 100"] = "it takes minutes: run without --quick"
    with_flower = FLOWER.exists()
    found = [_cell(cell, with_flower=with_flower and not (quick and cell["n"] > 20)) for cell in cells(quick=quick)]
    return {"cells": found, **({"left_out": left_out} if left_out else {})}


def _cell(cell: Mapping[str, Any], *, with_flower: bool) -> dict[str, Any]:
    # Flower's graph is complete in all of them, and its cost at a hundred does not depend on ours.
    compared = with_flower and cell["degree"] is None
    ours, flower = [], []
    for _ in range(cell["repeats"]):
        ours.append(_child([sys.executable, "-m", "benchmarks.secagg_round"], cell))
        if compared:
            flower.append(_child([str(FLOWER), "benchmarks/flower_round.py"], cell))
    mine = _medians(ours)
    found = {name: cell[name] for name in ("n", "d", "dropouts", "degree")} | mine
    if not flower:
        return found
    masked, plain = _medians([each["secagg"] for each in flower]), _medians([each["fedavg"] for each in flower])
    return (
        found
        | {f"flower_{name}": masked[name] for name in ("client_s", "server_s", "total_s", "bytes_per_parameter", "peak_rss_mb")}
        | {f"flower_fedavg_{name}": plain[name] for name in ("client_s", "server_s", "total_s", "bytes_per_parameter")}
        | {"flower_version": flower[0]["version"], "ratio": masked["total_s"] / mine["total_s"], "repeats": cell["repeats"]}
    )


def _medians(runs: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def _child(command: list[str], cell: Mapping[str, Any]) -> dict[str, Any]:
    # numpy and OpenSSL use one thread; an idle pool of another library would be counted.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    ended = subprocess.run([*command, json.dumps(cell)], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(f"{command[-1]} {json.dumps(cell)} ended with {ended.returncode}: {ended.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found
