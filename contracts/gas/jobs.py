"""Compute-to-data jobs, paid from escrow."""

from typing import Any

from contracts.gas.access import HMB, registration, terms
from contracts.gas.meter import HOUR, Meter
from rexis.chain.deployer import LOCAL_TOKEN
from rexis.chain.signer import Signer
from rexis.encoding import sha256

JOBS = "ComputeJobs"
ALGORITHM, RESULT, LOGS, METER, REASON = (sha256(text) for text in (b"algorithm", b"result", b"logs", b"meter", b"reason"))
DAY = 24 * HOUR
PRICE, ROYALTY_BPS = 40_000_000, 250


def weigh(meter: Meter) -> None:
    """Trust, request and pay, run, settle in every way, withdraw."""
    owner, consumer, provider, arbiter = (meter.account(f"job {role}") for role in ("owner", "consumer", "provider", "arbiter"))
    plain, with_royalty = (_offer(meter, owner, (consumer, meter.payer), royalty_bps) for royalty_bps in (0, ROYALTY_BPS))
    meter.relayed("trust an algorithm", owner, JOBS, "trustAlgorithm", plain, ALGORITHM, 0)
    meter.relayed("trust a provider", owner, JOBS, "trustProvider", plain, provider.address, 0)
    meter.relayed(None, owner, JOBS, "trustAlgorithm", with_royalty, ALGORITHM, 0)
    meter.relayed(None, owner, JOBS, "trustProvider", with_royalty, provider.address, 0)

    def request(name: str | None, who: Signer, document: str, dataset: int = plain) -> bytes:
        given = {
            "dataset": dataset,
            "purpose": HMB,
            "provider": provider.address,
            "arbiter": arbiter.address,
            "algorithm": ALGORITHM,
            "document": sha256(document.encode()),
            "token": meter.address(LOCAL_TOKEN),
            "price": PRICE,
            "acceptUntil": meter.now + DAY,
            "runSeconds": 2 * DAY,
            "reviewSeconds": 3 * DAY,
        }
        arguments = (given, meter.permit(who, JOBS, PRICE))
        if who is meter.payer:
            meter.sent(name, JOBS, "request", *arguments)
        else:
            meter.relayed(name, who, JOBS, "request", *arguments)
        return bytes(meter.call(JOBS, "jobId", who.address, given))

    for who in (consumer, meter.payer):
        meter.mint(who, 10 * PRICE)
    released = [request("request a job with permit, first", consumer, "1"), request("request a job with permit", consumer, "2")]
    request(None, meter.payer, "1")
    request("request a job with permit", meter.payer, "2")
    shared, disputed = request(None, consumer, "3", with_royalty), request(None, consumer, "4")
    overdue, cancelled = request(None, consumer, "5"), request(None, consumer, "6")

    for job in (*released, shared, disputed):
        first = job is released[0]
        meter.relayed("accept a job" if first else None, provider, JOBS, "accept", job)
        meter.relayed("commit to a result" if first else None, provider, JOBS, "commitResult", job, RESULT, LOGS, METER)
    meter.relayed("release a job, first", consumer, JOBS, "release", released[0])
    meter.relayed("release a job", consumer, JOBS, "release", released[1])
    meter.relayed("release a job with royalty", consumer, JOBS, "release", shared)
    meter.relayed("dispute a job", consumer, JOBS, "dispute", disputed, REASON)
    meter.relayed("share a disputed price", arbiter, JOBS, "resolve", disputed, 5_000)
    meter.relayed("cancel a job", consumer, JOBS, "cancel", cancelled)
    meter.wait(DAY + 1)
    meter.sent("refund a job by timeout", JOBS, "timeout", overdue)
    meter.relayed("withdraw", provider, JOBS, "withdraw", meter.address(LOCAL_TOKEN), provider.address)


def _offer(meter: Meter, owner: Signer, consumers: tuple[Signer, ...], royalty_bps: int) -> int:
    """A data set that these may use. Returns its number."""
    given: dict[str, Any] = registration(f"job data {royalty_bps}", royalty_bps=royalty_bps)
    meter.relayed(None, owner, "DatasetRegistry", "register", given)
    dataset = int(meter.call("DatasetRegistry", "datasetOf", owner.address, given["contentRoot"]))
    for consumer in consumers:
        meter.relayed(None, owner, "AccessManager", "grant", terms(meter, dataset, consumer.address, 0))
    return dataset
