"""`python -m benchmarks --help` lists the subjects."""

import argparse
import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any

from benchmarks.machine import commit, describe_machine

SUBJECTS = {
    "ee": "Equivariant Encryption: error, runtime, expansion and key times beside the plain model",
    "training": "training on ciphertext beside training on plaintext: weights, logits, throughput; accuracy on the ICD-10 chapter task",
    "attacks": "what attacks on keyed rows and permuted token ids read of real data, with and without noise",
    "federation": "heart disease at four hospitals: federated beside pooled training, with DP too; ICD-10 chapters on a frozen encoder",
    "secagg": "a masked round beside Flower's SecAgg+, its plaintext FedAvg and the floor: CPU seconds, bytes, memory",
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
    parser.add_argument("--only", nargs="+", metavar="PART", help="some parts of ee, training or federation")
    arguments = parser.parse_args()
    figures = figures_of(import_module(f"benchmarks.{arguments.subject}"), arguments.only, quick=arguments.quick)
    if arguments.json:
        context = {"subject": arguments.subject, "quick": arguments.quick, "commit": commit(), "machine": describe_machine()}
        print(json.dumps(context | figures, indent=2))
        return
    print("\n".join(table(figures)))


def figures_of(subject: ModuleType, only: Sequence[str] | None, *, quick: bool) -> dict[str, Any]:
    """The figures of a subject, or of some of its parts; a part that needs a package which is not installed is named under `left_out`."""
    parts: Mapping[str, Any] = getattr(subject, "PARTS", {})
    unknown = sorted(set(only or ()) - set(parts))
    if unknown:
        raise SystemExit(f"expected parts among {', '.join(parts) or 'none'}, got {', '.join(unknown)}")
    if not parts:
        figures: dict[str, Any] = subject.run(quick=quick)
        return figures
    figures, left_out = {}, {}
    for name in only or parts:
        try:
            found = parts[name](quick=quick)
        except ModuleNotFoundError as missing:
            # What is not installed is named; a module of our own that is missing is a defect.
            if (missing.name or "").partition(".")[0] in ("rexis", "benchmarks"):
                raise
            left_out[name] = str(missing)
            continue
        # A part is one entry, or brings several that are named after it.
        figures |= found if all(isinstance(value, Mapping) for value in found.values()) else {name: found}
    return {**figures, **({"left_out": left_out} if left_out else {})}


def table(figures: Mapping[str, Any]) -> list[str]:
    """Lines of a table: counts in whole numbers, measurements to three digits."""
    lines = []
    for name, value in figures.items():
        if isinstance(value, list):
            lines += [line for number, item in enumerate(value, start=1) for line in table({f"{name} {number}": item})]
            continue
        if not isinstance(value, Mapping):
            lines.append(f"{name:26}{_number(value)}")
            continue
        width = max(24, *(len(key) + 2 for key in value))
        lines += [name, *(f"  {key:{width}}{_number(figure)}" for key, figure in value.items())]
    return lines


def _number(value: object) -> str:
    if not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


if __name__ == "__main__":
    main()
