"""`python -m tests.campaign`."""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from tests.campaign.chain_kills import campaign, passed, write


def main() -> None:
    """Run a campaign, print its result, and exit with 1 if it found something."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description="Long runs that look for what is lost.")
    commands = parser.add_subparsers(required=True, dest="campaign")
    chain = commands.add_parser("chain", help="kill chain, relay and chain index under a stream of operations")
    chain.add_argument("--kills", type=int, default=50)
    chain.add_argument("--seed", type=int, default=1)
    chain.add_argument("--json", type=Path, help="also keep the result in this file")
    chain.add_argument("--folder", type=Path, help="empty folder to work in, kept afterwards; without it a temporary one that is not")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rexis-campaign-") as temporary:
        folder = given.folder or Path(temporary)
        result = campaign(folder, kills=given.kills, seed=given.seed, tell=lambda line: print(line, file=sys.stderr, flush=True))
    if given.json is not None:
        write(result, given.json)
    print(json.dumps({name: value for name, value in result.items() if name != "kills_in_order"}, indent=2))
    sys.exit(0 if passed(result) else 1)


if __name__ == "__main__":
    main()
