"""Plans of statistics that count rows, and federations with them."""

from typing import Any

from rexis.encoding import checksum_address
from rexis.protocol.federation_config import FederationConfig

TABLE: dict[str, Any] = {
    "identifier": "table",
    "dimensions": [{"column": "age", "bands": ["50", "65"]}, {"column": "sex", "levels": ["F", "M"]}],
    "minimum_cell": 5,
}
SURVIVAL: dict[str, Any] = {
    "identifier": "survival",
    "time": "months",
    "event": {"column": "dead", "events": ["1"], "censored": ["0"]},
    "edges": ["6", "12", "24"],
    "group": {"column": "arm", "levels": ["A", "B"]},
    "minimum_cell": 5,
}
NOISE = {"mechanism": "skellam", "noise_multiplier": "4", "delta": "0.00001", "epsilon": "2"}
CONFIG: dict[str, Any] = {
    "version": 1,
    "name": "counts",
    "kind": "statistics",
    "founder": checksum_address("0x" + 40 * "a"),
    "members": [{"address": checksum_address(f"0x{17 * n:040x}"), "dataset": n} for n in (1, 2, 3, 4)],
    "aggregators": [checksum_address("0x" + 40 * "b")],
    "quorum": 1,
    "collusion_bound": 1,
    "threshold": 3,
    "min_survivors": 3,
    "purpose": 6,
    "features": {"version": 1, "inputs": [{"column": "age", "kind": "number"}], "target": {"column": "dead", "above": "0"}},
    "stage_s": 20,
    "training": None,
}


def noisy(plan: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in plan.items() if name != "minimum_cell"} | {"privacy": NOISE}


def config_of(plan: dict[str, Any], **changes: Any) -> FederationConfig:
    protection = {"protection": "secagg+dp"} if "privacy" in plan else {}
    return FederationConfig.parse({**CONFIG, "statistics": plan, **protection, **changes})
