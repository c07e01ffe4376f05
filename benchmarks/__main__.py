"""`python -m benchmarks --help` lists the subjects."""

import argparse
import json
from importlib import import_module
from typing import Any

from benchmarks.machine import commit, describe_machine

SUBJECTS = {"ee": "Equivariant Encryption: error, runtime, expansion and key times beside the plain model"}


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
    for name, values in figures.items():
        print(name)
        for key, value in values.items():
            print(f"  {key:24}{value:.3g}")


if __name__ == "__main__":
    main()
