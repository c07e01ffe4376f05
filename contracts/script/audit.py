"""Machines read the contracts: slither against a committed, explained baseline, and halmos over every input of the symbolic tests.

    python -m contracts.script.audit              exit status 1 if anything is found that the baseline does not explain
    python -m contracts.script.audit --findings   print what slither finds as a baseline to be explained

`make audit` installs both tools into an environment of their own, since slither needs an older web3 (specs/chain.md, section 2).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from contracts.script.compile import find_node

ROOT = Path(__file__).resolve().parents[1]
BASELINE = ROOT / "audit" / "slither.json"
TOOLS = Path(__file__).resolve().parents[2] / ".venv" / "audit" / "bin"
# The solver may think this long about one path; a test that is not decided by then fails.
SOLVER_TIMEOUT_MS = 120_000

# Detector → places, such as "Forwarder.execute(Request,bytes)".
Findings = dict[str, list[str]]


def find_forge() -> Path:
    """The forge that `npm ci` installed; exits with what to do if there is none."""
    found = sorted((ROOT / "node_modules" / "@foundry-rs").glob("forge-*/bin/forge*"))
    if not found:
        sys.exit("no forge found: run `npm ci` in contracts/")
    return found[0]


def environment() -> dict[str, str]:
    """With node for the compiler behind forge, forge for halmos, and the audit tools, before what PATH has."""
    folders = [TOOLS, find_forge().parent, Path(find_node()).parent]
    return os.environ | {"PATH": os.pathsep.join([*map(str, folders), os.environ.get("PATH", "")])}


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a tool in contracts/."""
    return subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)


def build(folder: Path, *options: str) -> None:
    """Compile with forge into `folder`; exits with its messages."""
    forge = ["forge", "build", "--force", "--out", str(folder), "--cache-path", str(folder / "cache"), *options]
    if (done := run(forge)).returncode != 0:
        sys.exit(done.stdout + done.stderr)


def slither_findings() -> Findings:
    """What slither says about the sources in src/; what it says about libraries alone is theirs."""
    with tempfile.TemporaryDirectory() as scratch:
        out, report = Path(scratch) / "out", Path(scratch) / "slither.json"
        build(out, "--build-info", "--skip", "test/**")
        ran = run(["slither", ".", "--ignore-compile", "--foundry-out-directory", str(out), "--json", str(report)])
        if not report.exists():
            sys.exit(ran.stdout + ran.stderr)
        result: dict[str, Any] = json.loads(report.read_text())
    if not result["success"]:
        sys.exit(f"slither failed: {result['error']}")
    findings: defaultdict[str, set[str]] = defaultdict(set)
    for found in result["results"].get("detectors", []):
        first = found["elements"][0] if found["elements"] else None
        if first is not None and first["source_mapping"]["filename_relative"].startswith("src/"):
            findings[found["check"]].add(place(first))
    return {check: sorted(places) for check, places in sorted(findings.items())}


def place(element: dict[str, Any]) -> str:
    """Contract and function, variable or event, without line numbers, so that moving code changes nothing."""
    fields = element.get("type_specific_fields", {})
    parent: dict[str, Any] = fields.get("parent", {})
    if element["type"] == "node":
        return place(parent)
    name = str(fields.get("signature", element["name"]))
    return f"{parent['name']}.{name}" if parent.get("type") == "contract" else name


def explained(baseline: dict[str, list[dict[str, Any]]]) -> Findings:
    """The places that the baseline explains; exits if one has no reason."""
    for check, groups in baseline.items():
        if not all(len(group["why"]) > 20 and group["where"] for group in groups):
            sys.exit(f"{BASELINE.name}: {check} names a place without saying why it is no defect")
    return {check: sorted(where for group in groups for where in group["where"]) for check, groups in sorted(baseline.items())}


def check_slither() -> list[str]:
    """Differences between what slither finds and what the baseline explains, as lines."""
    found = slither_findings()
    known = explained(json.loads(BASELINE.read_text(encoding="utf-8")))
    lines = []
    for check in sorted(found.keys() | known.keys()):
        new, gone = set(found.get(check, [])) - set(known.get(check, [])), set(known.get(check, [])) - set(found.get(check, []))
        lines += [f"slither {check}: {where} is not explained" for where in sorted(new)]
        lines += [f"slither {check}: {where} is explained but no longer found; take it out" for where in sorted(gone)]
    print(f"slither: {sum(map(len, found.values()))} findings in src/, {len(lines)} differences from {BASELINE.name}")
    return lines


def check_halmos() -> list[str]:
    """Symbolic tests that do not hold for every input, or were not decided, as lines."""
    with tempfile.TemporaryDirectory() as scratch:
        out, report = Path(scratch) / "out", Path(scratch) / "halmos.json"
        # halmos reads the syntax tree; the option's name is forge's.
        build(out, "--ast")
        ran = run(
            [
                "halmos",
                *("--root", str(ROOT), "--forge-build-out", os.path.relpath(out, ROOT), "--match-contract", "SymbolicTest$"),
                *("--solver-timeout-assertion", str(SOLVER_TIMEOUT_MS), "--json-output", str(report), "--no-status"),
            ]
        )
        if not report.exists():
            return [f"halmos wrote no report: {ran.stdout[-2000:]}{ran.stderr[-2000:]}"]
        results = json.loads(report.read_text())["test_results"]
    tests = [(contract, test) for contract, tests in results.items() for test in tests]
    if not tests:
        return ["halmos found no symbolic test"]
    failed = [f"halmos: {contract}.{test['name']} has exit code {test['exitcode']}" for contract, test in tests if test["exitcode"] != 0]
    bounded = [f"halmos: {contract}.{test['name']} left loops open" for contract, test in tests if test.get("num_bounded_loops")]
    print(f"halmos: {len(tests)} symbolic tests, {len(failed)} failed, {len(bounded)} cut short")
    return failed + bounded


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--findings", action="store_true", help="print slither's findings in the form of the baseline, without reasons")
    if parser.parse_args().findings:
        print(json.dumps({check: [{"why": "", "where": places}] for check, places in slither_findings().items()}, indent=2))
        return 0
    problems = check_slither() + check_halmos()
    print("\n".join(problems), file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
