"""`python -m contracts.gas [--check]`: see the package."""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path

from contracts.gas import access, delegation, evaluations, federations, inferences, jobs, rewards
from contracts.gas.meter import Scenario, weighed_chain

SNAPSHOT = Path(__file__).with_name("snapshot.json")
# A call may cost this much more than the snapshot says.
TOLERANCE = 0.05
SCENARIOS: tuple[Scenario, ...] = (
    access.weigh,
    federations.weigh,
    inferences.weigh,
    jobs.weigh,
    evaluations.weigh,
    rewards.weigh,
    delegation.weigh,
)


def measure() -> dict[str, int]:
    """Name of a call → gas, in the order of the scenarios."""
    with weighed_chain() as meter:
        for scenario in SCENARIOS:
            scenario(meter)
        return meter.gas


def both_ways(gas: Mapping[str, int]) -> list[str]:
    """Names of calls that were weighed relayed and sent."""
    names = [name.removesuffix(", relayed") for name in gas if name.endswith(", relayed")]
    return [name for name in names if f"{name}, sent" in gas]


def compare(snapshot: dict[str, int], measured: dict[str, int]) -> list[str]:
    """What is wrong with `measured`, as lines: dearer calls, and calls that only one of the two knows."""
    lines = [
        f"{name}: {measured[name]:,} gas, the snapshot says {units:,}: {measured[name] / units - 1:+.1%}"
        for name, units in snapshot.items()
        if name in measured and measured[name] > units * (1 + TOLERANCE)
    ]
    return lines + [
        f"{name}: only in {'the snapshot' if name in snapshot else 'the scenarios'}" for name in snapshot.keys() ^ measured.keys()
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help=f"compare with {SNAPSHOT.name}, fail above {TOLERANCE:+.0%}, write nothing")
    check, measured = parser.parse_args().check, measure()
    if not check:
        SNAPSHOT.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
        print(f"{len(measured)} calls weighed")
        return 0
    problems = compare(json.loads(SNAPSHOT.read_text(encoding="utf-8")), measured)
    if problems:
        print(
            "\n".join([*problems, "if that is meant: `python -m contracts.gas`, and commit the snapshot with the reason"]), file=sys.stderr
        )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
