"""`python -m services.local`: the whole platform on this machine."""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from rexis.errors import ConfigurationError, RexisError, UnavailableError
from services.local import doctor as checks
from services.local import probes, record
from services.local.platform import STALE_GRACE_S, Platform
from services.local.progress import StartProgress
from services.local.settings import SERVICES, LocalSettings
from services.local.sweep import sweep

DOWN_TIMEOUT_S = 60.0
LARGE_CHAIN_STATE = 200 << 20

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="The whole platform on this machine.")
console = Console(highlight=False)

DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Folder of everything the platform keeps; default .rexis.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")]


class _Signals:
    """Counts requests to stop: the first ends the platform in order, the second at once."""

    def __init__(self) -> None:
        self.count = 0
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)

    def _on_signal(self, _number: int, _frame: object) -> None:
        self.count += 1

    def stop(self) -> bool:
        return self.count >= 1

    def hurry(self) -> bool:
        return self.count >= 2


@app.command()
def up(data_dir: DataDir = None) -> None:
    """Start everything, keep it running, and stop it on Ctrl-C or SIGTERM."""
    settings = LocalSettings.read(data_dir=data_dir)
    signals = _Signals()
    with StartProgress(console) as progress:
        platform = Platform.start(settings, on_change=progress.on_change, interrupted=signals.stop)
    try:
        if not signals.stop():
            _announce(platform, progress.seconds)
        platform.wait(signals.stop)
    finally:
        console.print("stopping; Ctrl-C again kills")
        platform.stop(signals.hurry)
    console.print("stopped; no process is left")


def _announce(platform: Platform, seconds: float) -> None:
    if platform.swept:
        console.print(f"{platform.swept} process(es) of an earlier start were left and have been ended")
    for name, port in platform.moved_ports().items():
        console.print(f"[yellow]the standard port of {name} is taken; it listens on {port}[/]")
    for name, url in platform.urls.items():
        console.print(f"  {name:<12} {url}")
    console.print(f"The platform is ready after {seconds:.1f} s; data in {platform.settings.folder}; Ctrl-C stops it.", soft_wrap=True)


@app.command()
def down(data_dir: DataDir = None) -> None:
    """Stop the platform that runs on the folder, and end what a crash has left."""
    folder = LocalSettings.read(data_dir=data_dir).folder
    pid = record.holder(folder)
    if pid is not None:
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + DOWN_TIMEOUT_S
        while record.holder(folder) == pid and time.monotonic() < deadline:
            time.sleep(0.1)
        if record.holder(folder) == pid:
            os.kill(pid, signal.SIGKILL)
    left = sweep(f"{folder}#", STALE_GRACE_S)
    record.remove(folder)
    if pid is None and not left:
        console.print(f"no platform runs on {folder}", soft_wrap=True)
    else:
        console.print("stopped; no process is left" + (f" ({left} had to be ended)" if left else ""))


@app.command()
def status(data_dir: DataDir = None, as_json: Json = False) -> None:
    """Show what runs; exit code 1 unless every service answers that it is ready."""
    folder = LocalSettings.read(data_dir=data_dir).folder
    running = record.read(folder)
    if running is None:
        if as_json:
            print(json.dumps({"running": False, "data_dir": str(folder)}))
        else:
            console.print(f"no platform runs on {folder}; start it with `make up`", soft_wrap=True)
        raise typer.Exit(1)
    services = {name: _readiness(running["urls"][name]) for name in SERVICES}
    state = folder / "chain" / "state.json"
    size = state.stat().st_size if state.exists() else 0
    if as_json:
        print(json.dumps({"running": True, "data_dir": str(folder), "ready": services, "chain_state_bytes": size, **running}))
    else:
        for name, process in running["processes"].items():
            restarts = f", restarts: {process['restarts']}" if process["restarts"] else ""
            answer = services.get(name)
            note = f"  {running['urls'][name]} {'is ready' if answer is None else answer}" if name in services else ""
            console.print(f"{name:<24} {process['state']:<10} pid {process['pid'] or '-':<8}{restarts}{note}", soft_wrap=True)
        if size > LARGE_CHAIN_STATE:
            console.print(f"[yellow]the chain's state has grown to {size >> 20} MiB and is rewritten every second; begin a new {folder}[/]")
    if any(answer is not None for answer in services.values()):
        raise typer.Exit(1)


def _readiness(url: str) -> str | None:
    """None when ready, else why not."""
    try:
        probes.service_ready(url)
    except (OSError, UnavailableError) as error:
        return str(error)
    return None


@app.command()
def doctor(data_dir: DataDir = None, as_json: Json = False) -> None:
    """Say what is missing on this machine; exit code 1 if something necessary is."""
    raise typer.Exit(checks.main(["--json"] * as_json + (["--data-dir", str(data_dir)] if data_dir else [])))


def main() -> None:
    """Run the command; an error of ours is a message, not a stack trace."""
    try:
        app()
    except RexisError as error:
        Console(stderr=True, highlight=False).print(f"[red]error:[/] {error}", soft_wrap=True, markup=True)
        sys.exit(2 if isinstance(error, ConfigurationError) else 1)
