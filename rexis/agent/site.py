"""The site file: which tables an agent serves, and what this institution asks of everybody who uses them. TOML, read strictly.

    poll_interval_s = 1.0                 # longest pause between two looks at the services

    [services]                            # each may be left out: then the profile, or a platform on this machine
    marketplace = "https://marketplace.example"
    aggregator = "https://aggregator.example"      # or several, of which the one that leads is asked: aggregators = ["https://…", …]
    chain = ["https://node.example"]      # nodes that this institution trusts; the first that answers is asked

    [[datasets]]
    table = "heart.csv"                   # as it was registered; paths start at this file
    policy = "policy.yaml"
    delimiter = ","
    exclude = []
    training_rows = "training.json"       # list of row indices; without it every row is used for training

    [queries]                             # without this section no query is run
    sensitive = ["num"]                   # what nobody may learn about a person; all other columns may single one out
    automatic = true                      # false: a person decides about every answer
    minimum_cell = 10
    rounding = 5
    budget = 30                           # different queries about a data set, of all consumers together

    [federations]                         # without this section the agent takes part in none
    minimum_examples = 10
    minimum_members = 3
    minimum_survivors = 3
    collusion_bound = 1
    protections = ["secagg", "secagg+dp"] # of single updates; "none" and "ee" give what masks would hide, and have to be named
    purposes = ["HMB"]                    # without it the grants on chain decide
    epsilon = 3.0                         # most that trained models may cost a patient, of all federations together, at
    delta = 1e-6                          # this probability of more; without both, each federation's own bound, or none
    minimum_cell = 10                     # of exact tables and survival counts, in this site's own rows
    maximum_counts = 3                    # federations that may count one column of one version of the data
    chain_away_stages = 3                 # stages without a new block after which the chain counts as away; 0: it is always waited for

    [models]                              # what text classifiers are trained on, for federations that name it by its digest
    folders = ["minilm"]                  # HuggingFace folders with config.json, safetensors and tokenizer.json

A key that is not known is refused: a rule with a mistyped name would be a rule that nobody keeps.
"""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

from rexis.agent.execution.query_rules import DEFAULT_BUDGET, QueryRules
from rexis.agent.federation.site_policy import PrivacyCap, SitePolicy
from rexis.client.connection import origin
from rexis.disclosure.gate import CellRules
from rexis.errors import ConfigurationError, MalformedMessageError
from rexis.policy.conditions import permission
from rexis.protocol.federation_config import MAX_AGGREGATORS
from rexis.protocol.plan_parts import Protection

MAX_FILE_BYTES = 1 << 20
MAX_ROWS_FILE_BYTES = 64 << 20
MAX_DATASETS = 64
MAX_NODES = 8
MAX_MODELS = 64
MAX_BUDGET = 10_000
PROTECTIONS: tuple[Protection, ...] = get_args(Protection)
MIN_POLL_S, DEFAULT_POLL_S, MAX_POLL_S = 0.1, 5.0, 3600.0

Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Services:
    """Where the services and this institution's nodes are; None or empty: as the command's profile says.

    `aggregators` are all that are named, `aggregator` the first of them.
    """

    marketplace: str | None = None
    aggregator: str | None = None
    aggregators: tuple[str, ...] = ()
    chain: tuple[str, ...] = ()


@dataclass(frozen=True)
class SiteDataset:
    """One table that the agent serves.

    Attributes:
        table, policy: files; the table is read as it was registered.
        delimiter, exclude: see `rexis.agent.table.read_table`.
        training_rows: file with the indices of the rows that models are trained on, None for all.
    """

    table: Path
    policy: Path
    delimiter: str = ","
    exclude: tuple[str, ...] = ()
    training_rows: Path | None = None


@dataclass(frozen=True)
class Site:
    """A site file."""

    datasets: tuple[SiteDataset, ...]
    services: Services = Services()
    queries: QueryRules | None = None
    federations: SitePolicy | None = None
    models: tuple[Path, ...] = ()
    poll_interval_s: float = DEFAULT_POLL_S


def read_site(path: Path) -> Site:
    """Read a site file.

    Raises:
        ConfigurationError: too large, not TOML, an unknown or missing key, a value out of bounds; the message names the key.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise ConfigurationError(f"{path.name}: expected at most {MAX_FILE_BYTES} bytes")
        document = tomllib.loads(content.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigurationError(f"{path.name}: not TOML: {error}") from error
    try:
        return _site(document, path.absolute().parent)
    except (ConfigurationError, MalformedMessageError, ValueError) as error:
        raise ConfigurationError(f"{path.name}: {error}") from error


def read_training_rows(path: Path, rows: int) -> tuple[int, ...]:
    """Read a JSON list of different row indices, each below `rows`; ascending.

    Raises:
        ConfigurationError: something else.
    """
    with path.open("rb") as file:
        content = file.read(MAX_ROWS_FILE_BYTES + 1)
    try:
        indices = json.loads(content) if len(content) <= MAX_ROWS_FILE_BYTES else None
    except (ValueError, RecursionError):
        indices = None
    if not isinstance(indices, list) or not indices or not all(type(index) is int and 0 <= index < rows for index in indices):
        raise ConfigurationError(f"{path.name}: expected a JSON list of row indices from 0 to {rows - 1}")
    if len(set(indices)) < len(indices):
        raise ConfigurationError(f"{path.name}: a row index is listed twice")
    return tuple(sorted(indices))


def _site(document: Mapping[str, Any], folder: Path) -> Site:
    top = _Section("", document, {"poll_interval_s", "services", "datasets", "queries", "federations", "models"})
    listed: list[Any] = top.value("datasets", list, [])
    if not 0 < len(listed) <= MAX_DATASETS:
        raise ConfigurationError(f"expected 1 to {MAX_DATASETS} sections [[datasets]]")
    poll = top.value("poll_interval_s", int | float, DEFAULT_POLL_S)
    if not MIN_POLL_S <= poll <= MAX_POLL_S:
        raise ConfigurationError(f"poll_interval_s: expected {MIN_POLL_S} to {MAX_POLL_S:.0f} seconds, got {poll}")
    datasets = tuple(_dataset(each, folder) for each in listed)
    if len({each.table.resolve() for each in datasets}) < len(datasets):
        raise ConfigurationError("datasets: a table is listed twice")
    return Site(
        datasets=datasets,
        services=_services(top.value("services", dict, {})),
        queries=_queries(document["queries"]) if "queries" in document else None,
        federations=_federations(document["federations"]) if "federations" in document else None,
        models=_models(top.value("models", dict, {}), folder),
        poll_interval_s=float(poll),
    )


def _services(value: Any) -> Services:
    section = _Section("services", value, {"marketplace", "aggregator", "aggregators", "chain"})
    marketplace, aggregator = (section.optional_text(name) for name in ("marketplace", "aggregator"))
    aggregators = section.texts("aggregators", MAX_AGGREGATORS)
    if aggregator is not None and aggregators:
        raise ConfigurationError("services: expected either aggregator or aggregators, got both")
    aggregators = aggregators or (() if aggregator is None else (aggregator,))
    origins = [origin(url) for url in (*aggregators, *(() if marketplace is None else (marketplace,)))]
    if len(set(origins[: len(aggregators)])) < len(aggregators):
        raise ConfigurationError("services.aggregators: one is listed twice")
    nodes = section.texts("chain", MAX_NODES)
    if not all(node.startswith(("http://", "https://")) for node in nodes):
        # Its path may hold a credential: not in the message.
        raise ConfigurationError("services.chain: expected http or https addresses of JSON-RPC nodes")
    return Services(marketplace, aggregators[0] if aggregators else None, aggregators, nodes)


def _dataset(value: Any, folder: Path) -> SiteDataset:
    section = _Section("datasets", value, {"table", "policy", "delimiter", "exclude", "training_rows"})
    delimiter = section.optional_text("delimiter") or ","
    if len(delimiter) != 1:
        raise ConfigurationError("datasets.delimiter: expected one character")
    rows = section.optional_text("training_rows")
    return SiteDataset(
        table=folder / section.text("table"),
        policy=folder / section.text("policy"),
        delimiter=delimiter,
        exclude=section.texts("exclude", 2_000),
        training_rows=folder / rows if rows is not None else None,
    )


def _queries(value: Any) -> QueryRules:
    section = _Section("queries", value, {"sensitive", "automatic", "minimum_cell", "rounding", "budget"})
    sensitive = frozenset(section.texts("sensitive", 2_000))
    if not sensitive:
        raise ConfigurationError("queries.sensitive: expected the columns that nobody may learn about a person, e.g. the diagnosis")
    rounding = section.integer("rounding", 5, 3, 1000)
    return QueryRules(
        sensitive=sensitive,
        cells=CellRules(section.integer("minimum_cell", 10, 1, 1_000_000), rounding, suppress_zeros=True),
        budget=section.integer("budget", DEFAULT_BUDGET, 0, MAX_BUDGET),
        automatic=section.value("automatic", bool, True),
    )


def _federations(value: Any) -> SitePolicy:
    bounds = {
        "minimum_examples": "examples",
        "minimum_members": "members",
        "minimum_survivors": "min_survivors",
        "collusion_bound": "collusion_bound",
        "maximum_parameters": "parameters",
        "maximum_steps": "steps",
        "minimum_cell": "cell",
        "maximum_counts": "counts",
    }
    section = _Section("federations", value, {"protections", "purposes", "epsilon", "delta", "chain_away_stages", *bounds})
    default = SitePolicy()
    given = {field: section.integer(key, getattr(default, field), 1, 1 << 40) for key, field in bounds.items()}
    purposes = section.texts("purposes", 16)
    named = section.texts("protections", len(PROTECTIONS))
    if "protections" in value and not named:
        raise ConfigurationError("federations.protections: expected at least one name; without the section the agent takes part in none")
    unknown = [name for name in named if name not in PROTECTIONS]
    if unknown:
        raise ConfigurationError(f"federations.protections: expected names among {', '.join(PROTECTIONS)}, got {unknown[0][:40]!r}")
    protections = frozenset(each for each in PROTECTIONS if each in named) or default.protections
    cap = None
    if "epsilon" in value or "delta" in value:
        total, delta = (section.value(name, int | float, 0) for name in ("epsilon", "delta"))
        cap = PrivacyCap(float(total), float(delta))
    allowed = frozenset(permission(name).number for name in purposes) or None
    stages = section.integer("chain_away_stages", default.chain_away_stages, 0, 1000)
    return SitePolicy(**given, protections=protections, purposes=allowed, privacy=cap, chain_away_stages=stages)


def _models(value: Any, folder: Path) -> tuple[Path, ...]:
    return tuple(folder / name for name in _Section("models", value, {"folders"}).texts("folders", MAX_MODELS))


class _Section:
    """A table of the file with exactly the keys that are known."""

    def __init__(self, name: str, value: Any, known: set[str]) -> None:
        self._prefix = f"{name}." if name else ""
        if not isinstance(value, Mapping):
            raise ConfigurationError(f"{name}: expected a section")
        unknown = sorted(set(value) - known)
        if unknown:
            raise ConfigurationError(f"unknown key {self._prefix}{unknown[0]}; the known ones are {', '.join(sorted(known))}")
        self._value = value

    def value(self, key: str, kind: Any, default: Kind) -> Kind:
        found: Any = self._value.get(key, default)
        # True is an int to Python, and a mistake in a number.
        if not isinstance(found, kind) or (isinstance(found, bool) and kind is not bool):
            raise ConfigurationError(f"{self._prefix}{key}: expected another kind of value, got {str(found)[:40]!r}")
        checked: Kind = found
        return checked

    def integer(self, key: str, default: int, least: int, most: int) -> int:
        number = self.value(key, int, default)
        if not least <= number <= most:
            raise ConfigurationError(f"{self._prefix}{key}: expected {least} to {most}, got {number}")
        return number

    def optional_text(self, key: str) -> str | None:
        text: str | None = self.value(key, str, "") if key in self._value else None
        if text is not None and not text.strip(" ") and text != "\t":
            raise ConfigurationError(f"{self._prefix}{key}: expected a text, got an empty one")
        return text

    def text(self, key: str) -> str:
        text = self.optional_text(key)
        if text is None:
            raise ConfigurationError(f"{self._prefix}{key} is missing")
        return text

    def texts(self, key: str, most: int) -> tuple[str, ...]:
        values: list[Any] = self.value(key, list, [])
        if len(values) > most or not all(isinstance(value, str) and value for value in values):
            raise ConfigurationError(f"{self._prefix}{key}: expected a list of at most {most} texts")
        return tuple(values)
