"""The site file, and the tables that it opens: every mistake is a refusal that names its key, and a changed table is not served."""

import json
from pathlib import Path

import pytest

from rexis.agent.federation.site_policy import PrivacyCap
from rexis.agent.journal import Journal
from rexis.agent.premises import open_premises
from rexis.agent.registration import prepare
from rexis.agent.site import Site, read_site
from rexis.errors import ConfigurationError
from tests.unit.query_agent import DATASET, GROUPS, OWNER, PASSPHRASE, POLICY, TABLE, TARGET, registered_journal

MINIMAL = '[[datasets]]\ntable = "heart.csv"\npolicy = "policy.json"\n'
FULL = f"""
poll_interval_s = 0.5

[services]
marketplace = "https://marketplace.example"
aggregator = "https://aggregator.example:8443"
chain = ["https://node.example/with/a/path", "http://127.0.0.1:8545"]

{MINIMAL}delimiter = ";"
exclude = ["mrn"]
training_rows = "training.json"

[queries]
sensitive = ["num"]
automatic = false
minimum_cell = 15
rounding = 3
budget = 7

[federations]
minimum_examples = 40
minimum_members = 4
minimum_survivors = 4
collusion_bound = 2
protections = ["none", "secagg"]
purposes = ["HMB", "GRU"]
epsilon = 3
delta = 1e-6
minimum_cell = 20
maximum_counts = 1
chain_away_stages = 0

[models]
folders = ["minilm", "models/clinical"]
"""


def site_of(folder: Path, text: str) -> Site:
    path = folder / "site.toml"
    path.write_text(text, encoding="utf-8")
    return read_site(path)


def test_everything_that_may_be_said_is_read(tmp_path: Path) -> None:
    site = site_of(tmp_path, FULL)
    assert site.poll_interval_s == 0.5
    assert site.services.chain == ("https://node.example/with/a/path", "http://127.0.0.1:8545")
    (dataset,) = site.datasets
    assert (dataset.table, dataset.policy, dataset.training_rows) == tuple(
        tmp_path / name for name in ("heart.csv", "policy.json", "training.json")
    )
    assert (dataset.delimiter, dataset.exclude) == (";", ("mrn",))
    assert site.queries is not None
    assert (site.queries.sensitive, site.queries.automatic, site.queries.budget) == ({"num"}, False, 7)
    assert (site.queries.cells.min_cell_size, site.queries.cells.rounding_base) == (15, 3)
    assert site.federations is not None
    assert (site.federations.members, site.federations.collusion_bound, site.federations.min_survivors) == (4, 2, 4)
    assert (site.federations.examples, site.federations.purposes) == (40, {6, 42})
    assert site.federations.privacy == PrivacyCap(3.0, 1e-6)
    assert site.federations.protections == {"none", "secagg"}
    assert site.models == (tmp_path / "minilm", tmp_path / "models" / "clinical")
    assert (site.federations.cell, site.federations.counts) == (20, 1)
    assert site.federations.chain_away_stages == 0


def test_several_aggregators_are_named_in_their_order(tmp_path: Path) -> None:
    services = site_of(tmp_path, MINIMAL + '[services]\naggregators = ["https://b.example", "https://a.example:8443"]\n').services
    assert services.aggregators == ("https://b.example", "https://a.example:8443")
    assert services.aggregator == services.aggregators[0]
    one = site_of(tmp_path, MINIMAL + '[services]\naggregator = "https://b.example"\n').services
    assert one.aggregators == ("https://b.example",)


def test_what_is_not_said_is_not_allowed(tmp_path: Path) -> None:
    site = site_of(tmp_path, MINIMAL)
    assert site.queries is None
    assert site.federations is None
    assert site.services.marketplace is None
    assert site.models == ()
    assert site_of(tmp_path, MINIMAL + '[queries]\nsensitive = ["num"]\n').queries is not None
    plain = site_of(tmp_path, MINIMAL + "[federations]\n").federations
    assert plain is not None
    assert plain.protections == {"secagg", "secagg+dp"}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "datasets"),
        ("datasets = 3", "datasets"),
        ("not toml", "not TOML"),
        ("[[datasets]]\ntable = 'heart.csv'\n", "datasets.policy"),
        (MINIMAL + MINIMAL, "twice"),
        (MINIMAL + "minimum = 3\n", "datasets.minimum"),
        (MINIMAL + 'delimiter = ";;"\n', "datasets.delimiter"),
        (MINIMAL + "[querys]\n", "querys"),
        (MINIMAL + "[queries]\n", "queries.sensitive"),
        (MINIMAL + '[queries]\nsensitive = "num"\n', "queries.sensitive"),
        (MINIMAL + '[queries]\nsensitive = ["num"]\nminimum_cell = 4\n', "at least 5"),
        (MINIMAL + '[queries]\nsensitive = ["num"]\nminimum_cell = true\n', "queries.minimum_cell"),
        (MINIMAL + '[queries]\nsensitive = ["num"]\nrounding = 4\n', "odd"),
        (MINIMAL + '[queries]\nsensitive = ["num"]\nrounding = 1\n', "queries.rounding"),
        (MINIMAL + '[queries]\nsensitive = ["num"]\nbudget = -1\n', "queries.budget"),
        (MINIMAL + '[queries]\nsensitive = ["num"]\nautomatic = 1\n', "queries.automatic"),
        (MINIMAL + "[federations]\ncollusion_bound = 0\n", "federations.collusion_bound"),
        (MINIMAL + '[federations]\npurposes = ["XYZ"]\n', "XYZ"),
        (MINIMAL + '[federations]\nprotections = ["nothing"]\n', "federations.protections"),
        (MINIMAL + "[federations]\nprotections = []\n", "federations.protections"),
        (MINIMAL + "[federations]\nchain_away_stages = -1\n", "federations.chain_away_stages"),
        (MINIMAL + "[federations]\nepsilon = 3\n", "epsilon > 0 and delta"),
        (MINIMAL + "[federations]\ndelta = 1e-6\n", "epsilon > 0 and delta"),
        (MINIMAL + "[federations]\nepsilon = 3\ndelta = 1\n", "epsilon > 0 and delta"),
        (MINIMAL + '[federations]\nepsilon = "3"\ndelta = 1e-6\n', "federations.epsilon"),
        (MINIMAL + '[services]\nmarketplace = "http://elsewhere.example"\n', "TLS"),
        (MINIMAL + '[services]\nchain = ["ipc:///secret"]\n', "services.chain"),
        (MINIMAL + '[services]\naggregators = ["https://a.example", "http://b.example"]\n', "TLS"),
        (MINIMAL + '[services]\naggregators = ["https://a.example", "https://a.example/"]\n', "listed twice"),
        (MINIMAL + '[services]\naggregator = "https://a.example"\naggregators = ["https://b.example"]\n', "either"),
        ("poll_interval_s = 0.01\n" + MINIMAL, "poll_interval_s"),
        ("poll_interval_s = nan\n" + MINIMAL, "poll_interval_s"),
        ("poll_interval = 1\n" + MINIMAL, "poll_interval"),
    ],
)
def test_a_mistake_is_refused_by_name(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named) as refusal:
        site_of(tmp_path, text)
    assert "secret" not in str(refusal.value)


@pytest.fixture
def premises(tmp_path: Path) -> Path:
    """A folder with the registered table, its policy and its journal."""
    (tmp_path / "heart.csv").write_text("\n".join(",".join(row) for row in (TABLE.columns, *TABLE.rows)) + "\n")
    (tmp_path / "policy.json").write_text(json.dumps(POLICY.document()))
    registered_journal(tmp_path / "journal.sqlite").close()
    return tmp_path


def opened(folder: Path, text: str) -> tuple[int, int, tuple[int, ...] | None]:
    site = site_of(folder, text)
    with Journal.open(folder / "journal.sqlite", PASSPHRASE) as journal:
        (served,) = open_premises(site, journal, owner=OWNER, target=TARGET)
    assert served.policy == POLICY
    return served.holding.dataset, len(served.holding.table.rows), served.training_rows


def test_a_table_is_served_as_it_was_registered(premises: Path) -> None:
    (premises / "training.json").write_text("[5, 0, 3]")
    assert opened(premises, MINIMAL) == (DATASET, sum(count for *_, count in GROUPS), None)
    assert opened(premises, MINIMAL + 'training_rows = "training.json"\n')[2] == (0, 3, 5)


def test_a_table_that_changed_since_is_refused_by_the_rule(premises: Path) -> None:
    content = (premises / "heart.csv").read_text()
    (premises / "heart.csv").write_text(content.replace("f,30,0", "f,31,0", 1))
    with pytest.raises(ConfigurationError, match="rule registered table"):
        opened(premises, MINIMAL)
    (premises / "heart.csv").write_text(content)
    assert opened(premises, MINIMAL)[0] == DATASET
    with pytest.raises(ConfigurationError, match="rule registered table"):
        opened(premises, MINIMAL + 'exclude = ["num"]\n')


def test_a_table_that_has_no_token_yet_is_refused(premises: Path) -> None:
    (premises / "journal.sqlite").unlink()
    with Journal.open(premises / "journal.sqlite", PASSPHRASE, work_factor=2) as journal:
        prepare(journal, TABLE, {"name": "A table"}, POLICY.document(), owner=OWNER, target=TARGET)
    with pytest.raises(ConfigurationError, match="rule registered table"):
        opened(premises, MINIMAL)


def test_a_sensitive_column_that_does_not_exist_protects_nothing(premises: Path) -> None:
    with pytest.raises(ConfigurationError, match="diagnosis"):
        opened(premises, MINIMAL + '[queries]\nsensitive = ["diagnosis"]\n')


@pytest.mark.parametrize("rows", ["[]", "[100]", "[-1]", "[1, 1]", "[true]", '{"train": [1]}', "[1", "[1.0]"])
def test_training_rows_are_different_rows_of_the_table(premises: Path, rows: str) -> None:
    (premises / "training.json").write_text(rows)
    with pytest.raises(ConfigurationError, match=r"training\.json"):
        opened(premises, MINIMAL + 'training_rows = "training.json"\n')
