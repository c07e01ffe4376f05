"""`python -m tests.campaign`."""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.campaign import chain_kills, commit_kills, federation_kills, secagg_matrix
from tests.campaign.record import write


def main() -> None:
    """Run a campaign, print its result, and exit with 1 if it found something."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description="Long runs that look for what is lost.")
    commands = parser.add_subparsers(required=True, dest="campaign")
    chain = commands.add_parser("chain", help="kill chain, relay and chain index under a stream of operations")
    chain.add_argument("--kills", type=int, default=50)
    federation = commands.add_parser("federation", help="kill agents, aggregator and its background process while a federation trains")
    federation.add_argument("--agents", type=int, default=20)
    federation.add_argument("--rounds", type=int, default=10)
    federation.add_argument("--kills", type=int, default=3)
    federation.add_argument("--stage-s", type=int, default=240, help="seconds for each stage of a round")
    secagg = commands.add_parser("secagg", help="everything that can go wrong in an attempt: who, at which stage, among how many")
    secagg.add_argument("--sizes", type=int, nargs="+", default=secagg_matrix.SIZES, choices=secagg_matrix.COLLUDERS)
    commits = commands.add_parser("commits", help="kill the aggregator's background process and its API at every commit of a round")
    for command in (chain, federation, secagg):
        command.add_argument("--seed", type=int, default=1)
    for command in (chain, federation, secagg, commits):
        command.add_argument("--json", type=Path, help="also keep the result in this file")
        command.add_argument("--folder", type=Path, help="empty folder to work in, kept afterwards; without it a temporary one that is not")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rexis-campaign-") as temporary:
        result, passed = _run(given, (given.folder or Path(temporary)).resolve())
    if given.json is not None:
        write(result, given.json)
    print(json.dumps({name: value for name, value in result.items() if name != "kills_in_order"}, indent=2))
    sys.exit(0 if passed else 1)


def _run(given: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], bool]:
    if given.campaign == "chain":
        result = chain_kills.campaign(folder, kills=given.kills, seed=given.seed, tell=_tell)
        return result, chain_kills.passed(result)
    if given.campaign == "commits":
        result = commit_kills.campaign(folder, tell=_tell)
        return result, commit_kills.passed(result)
    if given.campaign == "secagg":
        result = secagg_matrix.campaign(given.seed, given.sizes, _tell)
        return result, secagg_matrix.passed(result)
    result = federation_kills.campaign(
        folder, agents=given.agents, rounds=given.rounds, kills=given.kills, seed=given.seed, stage_s=given.stage_s, tell=_tell
    )
    return result, federation_kills.passed(result)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
