"""SIGKILL of the chain, the relay and the chain index under a stream of operations; fifty of them are `make campaign`."""

from pathlib import Path

from tests.campaign.chain_kills import campaign, passed

SEED = 20_261_121


def test_kills_of_chain_relay_and_index_lose_nothing(tmp_path: Path) -> None:
    result = campaign(tmp_path, kills=3, seed=SEED, victims=("relay", "chain", "index"), pause_s=2.0, rate=5.0)
    assert passed(result), result
    assert result["kills"] == {"relay": 1, "chain": 1, "index": 1}
    assert result["landed"] == result["transactions"] > 10
    assert (result["lost"], result["duplicated"]) == (0, 0)
