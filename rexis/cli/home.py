"""What the command remembers under REXIS_HOME (default `~/.config/rexis`), and where it finds the services.

    profile.json          address, key file, whose key it is, chain id, and the service URLs that were given to `rexis login`
    keys/<address>.json   keystore v3 files
    agents/<address>/     the agent's journal
    datasets/<root>/      the public documents and the mock data of each registered table

A service's URL, and that of the chain's node, is, in this order: the option, REXIS_<SERVICE>_URL, the profile, the nearest
`.rexis/platform.json` (a platform on this machine), and the standard local port.
"""

import json
import os
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rexis.errors import ConfigurationError

SERVICES = ("marketplace", "trainer", "aggregator", "verifier")
# The services, and the JSON-RPC node that this side believes about the chain.
STANDARD_PORTS = {"marketplace": 8001, "trainer": 8002, "aggregator": 8003, "verifier": 8004, "chain": 8545}
MINIMUM_PASSPHRASE = 10
MAX_FILE_BYTES = 1 << 20


@dataclass(frozen=True)
class Profile:
    """Who uses the command: address, key file, the chain it signs for, and service URLs that were chosen.

    `agent` is the address of the key in the file where that is not the account's own but one that it delegated to.
    """

    address: str
    keystore: str
    chain_id: int
    urls: dict[str, str] = field(default_factory=dict)
    agent: str | None = None


def home() -> Path:
    """The folder of all state; not created here."""
    given = os.environ.get("REXIS_HOME")
    if given:
        return Path(given)
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "rexis"


def journal_path(address: str) -> Path:
    """The journal of one account's agent; it opens with the passphrase of the account's key file."""
    return home() / "agents" / address / "journal.sqlite"


def read_profile() -> Profile | None:
    """The remembered profile, None before the first `rexis login`.

    Raises:
        ConfigurationError: the file is damaged.
    """
    path = home() / "profile.json"
    try:
        document = _read_json(path)
    except FileNotFoundError:
        return None
    try:
        return Profile(**document)
    except TypeError as error:
        raise ConfigurationError(f"{path} has unexpected contents; remove it and run `rexis login`") from error


def require_profile() -> Profile:
    """The remembered profile.

    Raises:
        ConfigurationError: nobody logged in yet.
    """
    profile = read_profile()
    if profile is None:
        raise ConfigurationError(f"no identity in {home()} yet: run `rexis login`")
    return profile


def write_profile(profile: Profile) -> None:
    """Replace the profile; a reader sees the old one or the new one."""
    write_private(home() / "profile.json", (json.dumps(asdict(profile), indent=2) + "\n").encode())


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner reads, atomically and durably."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def service_url(service: str, given: str | None, profile: Profile | None) -> str:
    """Where a service is, or the chain's node; see the module's docstring for the order.

    Raises:
        ConfigurationError: a platform record that is damaged, or names another machine.
    """
    remembered = profile.urls.get(service) if profile else None
    chosen = given or os.environ.get(f"REXIS_{service.upper()}_URL") or remembered or _local_platform().get(service)
    return chosen or f"http://127.0.0.1:{STANDARD_PORTS[service]}"


def passphrase(*, confirm: bool = False) -> str:
    """The passphrase of key file and journal: REXIS_PASSPHRASE, else a file named by REXIS_PASSPHRASE_FILE, else asked for.

    Raises:
        ConfigurationError: nobody to ask, or too short for a new key.
    """
    value = os.environ.get("REXIS_PASSPHRASE")
    if value is None and (path := os.environ.get("REXIS_PASSPHRASE_FILE")):
        value = Path(path).read_text(encoding="utf-8").rstrip("\n")
    if value is None:
        if not sys.stdin.isatty():
            raise ConfigurationError(
                "the key file needs its passphrase: set REXIS_PASSPHRASE or REXIS_PASSPHRASE_FILE, or run in a terminal"
            )
        import typer

        value = str(typer.prompt("Passphrase", hide_input=True, confirmation_prompt=confirm, err=True))
    if confirm and len(value) < MINIMUM_PASSPHRASE:
        raise ConfigurationError(f"a new key needs a passphrase of at least {MINIMUM_PASSPHRASE} characters, got {len(value)}")
    return value


def _local_platform() -> dict[str, str]:
    """URLs in the nearest `.rexis/platform.json` at or above the working directory; only loopback ones are believed."""
    from rexis.client.connection import is_loopback_url

    here = Path.cwd()
    for folder in (here, *here.parents):
        path = folder / ".rexis" / "platform.json"
        if path.is_file():
            urls = _read_json(path).get("urls")
            named = {name: urls.get(name) for name in STANDARD_PORTS} if isinstance(urls, dict) else {}
            found = {name: url for name, url in named.items() if isinstance(url, str) and is_loopback_url(url)}
            # A platform on this machine may use a chain elsewhere; its node is not believed from here.
            if not set(SERVICES) <= set(found):
                raise ConfigurationError(
                    f"{path}: expected the loopback URLs of a local platform; remove it, or name the URL with an option"
                )
            return found
    return {}


def _read_json(path: Path) -> dict[str, Any]:
    """A JSON object of ours.

    Raises:
        ConfigurationError: too large, or no JSON object.
    """
    with path.open("rb") as file:
        content = file.read(MAX_FILE_BYTES + 1)
    try:
        document = json.loads(content) if len(content) <= MAX_FILE_BYTES else None
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise ConfigurationError(f"{path} is damaged: expected a JSON object; remove it and run the command again")
    return document
