"""`rexis-admin chain reindex`: proves that a service knows the chain row for row, says where it does not, and puts it right."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import text
from typer.testing import CliRunner, Result

from rexis.chain.permits import no_permit
from rexis.errors import ConfigurationError, UnavailableError
from services.admin.command import app
from services.foundation.database import transaction
from tests.services.access_on_chain import (
    BUYER,
    DAY,
    HOSPITAL,
    MEMBER,
    RESEARCHER,
    access,
    act,
    chain_time,
    free_job,
    marketplace_with_a_data_set,
    register,
    rpc,
)
from tests.services.marketplace_on_chain import Marketplace, running_chain, undone
from tests.services.service_applications import environment_of

TABLES = ("chain_event", "catalogue_entry", "dataset_parent", "bound_document", "access_change", "committee_member", "compute_job")


@pytest.fixture(scope="module")
def rpc_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_chain(tmp_path_factory.mktemp("anvil")) as url:
        yield url


@pytest.fixture
def marketplace(rpc_url: str, database_url: str) -> Iterator[Marketplace]:
    with undone(rpc_url) as chain, marketplace_with_a_data_set(chain, rpc_url, database_url) as found:
        register(found, BUYER, registration={"parents": [1]})
        act(found, HOSPITAL, "AccessManager", "setCommittee", 1, [MEMBER.address], 0)
        access(found)
        act(found, HOSPITAL, "ComputeJobs", "trustAlgorithm", 1, bytes([7]) * 32, 0)
        job = free_job(HOSPITAL, BUYER, bytes([7]) * 32, chain_time(found) + DAY)
        act(found, RESEARCHER, "ComputeJobs", "request", job, no_permit())
        yield found


def command(marketplace: Marketplace, *options: str) -> Result:
    return CliRunner().invoke(app, ["chain", "reindex", "marketplace", *options], env=environment_of(marketplace.settings))


def check(marketplace: Marketplace) -> dict[str, tuple[int, int]]:
    """What `--check` says of each table: missing and unexpected rows."""
    found = command(marketplace, "--check", "--json")
    document = json.loads(found.stdout)
    assert (found.exit_code == 0) is document["equal"]
    assert set(document["tables"]) == set(TABLES)
    return {name: (each["missing"]["count"], each["unexpected"]["count"]) for name, each in document["tables"].items()}


def contents(marketplace: Marketplace) -> dict[str, list[Any]]:
    with transaction(marketplace.engine, read_only=True) as session:
        return {name: sorted(map(tuple, session.execute(text(f"SELECT * FROM {name}"))), key=repr) for name in TABLES}


def change(marketplace: Marketplace, *statements: str) -> None:
    with transaction(marketplace.engine) as session:
        for statement in statements:
            assert session.execute(text(statement)).rowcount > 0


EQUAL = dict.fromkeys(TABLES, (0, 0))


def test_what_is_right_is_equal_and_stays_as_it_is(marketplace: Marketplace) -> None:
    before = contents(marketplace)
    assert all(before.values()), "every table has rows to compare"
    assert check(marketplace) == EQUAL
    assert "everything is as the chain has it" in command(marketplace, "--check").stdout
    assert contents(marketplace) == before
    assert json.loads(command(marketplace, "--json").stdout)["events"] == len(before["chain_event"])
    assert contents(marketplace) == before


def test_rows_that_differ_are_named_and_rebuilt(marketplace: Marketplace) -> None:
    right = contents(marketplace)
    change(
        marketplace,
        "UPDATE catalogue_entry SET policy_version = 7 WHERE token_id = 2",
        "DELETE FROM dataset_parent",
        "INSERT INTO committee_member (dataset, member, owner_epoch) VALUES (2, '0xsomebody', 0)",
    )
    wrong = contents(marketplace)
    differences = {"catalogue_entry": (1, 1), "dataset_parent": (1, 0), "committee_member": (0, 1)}
    assert check(marketplace) == EQUAL | differences
    said = command(marketplace, "--check")
    assert said.exit_code == 1
    assert '+ [2, "0xsomebody", 0]' in said.stdout
    assert said.stdout.rstrip().endswith("rebuild with `rexis-admin chain reindex marketplace`")
    assert contents(marketplace) == wrong, "a check changes nothing"
    assert command(marketplace).exit_code == 0
    assert contents(marketplace) == right
    assert check(marketplace) == EQUAL


def test_events_that_are_not_the_chains_are_read_anew(marketplace: Marketplace) -> None:
    right = contents(marketplace)
    change(
        marketplace,
        "DELETE FROM chain_event WHERE contract = 'AccessManager' AND block_number = "
        "(SELECT max(block_number) FROM chain_event WHERE contract = 'AccessManager')",
        "UPDATE chain_event SET address = '0x' WHERE log_index = 0 AND block_number = (SELECT min(block_number) FROM chain_event)",
    )
    found = check(marketplace)
    assert found["chain_event"] == (2, 1)
    # What the stored events do not tell is no row of a projection that follows from them.
    assert found["access_change"] == (0, 1)
    assert "--from-chain" in command(marketplace, "--check").stdout
    assert command(marketplace).exit_code == 0
    assert check(marketplace)["chain_event"] == (2, 1), "rebuilding from wrong events does not help"
    assert command(marketplace, "--from-chain").exit_code == 0
    assert contents(marketplace) == right
    assert check(marketplace) == EQUAL


@pytest.mark.parametrize("dialect", ["sqlite"])
def test_a_chain_that_is_not_followed_is_not_compared_with(marketplace: Marketplace) -> None:
    taken = rpc(marketplace, "evm_snapshot")
    register(marketplace, HOSPITAL)
    before = contents(marketplace)
    assert rpc(marketplace, "evm_revert", taken) is True
    refused = command(marketplace, "--check")
    assert isinstance(refused.exception, UnavailableError)
    assert "let the service's background process follow it" in str(refused.exception)
    assert contents(marketplace) == before
    marketplace.work()


@pytest.mark.parametrize("dialect", ["sqlite"])
def test_checking_and_rereading_at_once_is_refused(marketplace: Marketplace) -> None:
    assert isinstance(command(marketplace, "--check", "--from-chain").exception, ConfigurationError)
