"""`python -m benchmarks --help` lists the subjects."""

import argparse
import json
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from benchmarks.machine import commit, describe_machine

SUBJECTS = {
    "ee": "Equivariant Encryption: error, runtime, expansion and key times beside the plain model",
    "chain": "gas of every call, relayed beside sent; operations lost or done twice while processes are killed",
}


def main() -> None:
    listing = "\n".join(f"  {name:14}{summary}" for name, summary in SUBJECTS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", epilog=f"subjects:\n{listing}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("subject", choices=SUBJECTS, metavar="NAME", help="one of the subjects below")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions; ends within 150 s on two cores")
    arguments = parser.parse_args()
    figures: dict[str, Any] = import_module(f"benchmarks.{arguments.subject}").run(quick=arguments.quick)
    if arguments.json:
        context = {"subject": arguments.subject, "quick": arguments.quick, "commit": commit(), "machine": describe_machine()}
        print(json.dumps(context | figures, indent=2))
        return
    print("\n".join(table(figures)))


def table(figures: Mapping[str, Any]) -> list[str]:
    """Lines of a table: counts in whole numbers, measurements to three digits."""
    lines = []
    for name, value in figures.items():
        if not isinstance(value, Mapping):
            lines.append(f"{name:26}{_number(value)}")
            continue
        width = max(24, *(len(key) + 2 for key in value))
        lines += [name, *(f"  {key:{width}}{_number(figure)}" for key, figure in value.items())]
    return lines


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


if __name__ == "__main__":
    main()
