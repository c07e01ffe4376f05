"""Results that are kept: what was checked out, and one kill a line."""

import json
import subprocess
from pathlib import Path
from typing import Any

from services.local.composition import ROOT


def commit() -> str:
    """The commit that is checked out, with a + if files differ from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no")
    return git("rev-parse", "HEAD") + ("+" if changed else "")


def write(result: dict[str, Any], file: Path) -> None:
    """Keep a result."""
    head = {name: value for name, value in result.items() if name != "kills_in_order"}
    text = json.dumps(head, indent=2)
    if "kills_in_order" in result:
        lines = ",\n".join("    " + json.dumps(kill) for kill in result["kills_in_order"])
        text = f'{text[:-2]},\n  "kills_in_order": [\n{lines}\n  ]\n}}'
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text + "\n")
