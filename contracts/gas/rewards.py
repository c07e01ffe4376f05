"""The reward of a round of four sites, shared among twenty accounts."""

from contracts.gas.federations import Consortium, accounts
from contracts.gas.meter import HOUR, Meter
from rexis.chain.deployer import LOCAL_TOKEN
from rexis.commitments import Share, epoch_id, reward_tree
from rexis.encoding import sha256

REWARDS = "RewardDistributor"
URI = "https://marketplace.rexis.example/v1/rewards/" + 62 * "7"
LABEL, REASON = sha256(b"label"), sha256(b"reason")
SHARES, AMOUNT = 20, 10**18
DAY = 24 * HOUR


def weigh(meter: Meter) -> None:
    """Pay in, share, object, claim, close."""
    funder, publisher, arbiter = (meter.account(f"reward {role}") for role in ("funder", "publisher", "arbiter"))
    one = Consortium(meter, funder, accounts(meter, "rewarded site", 4), accounts(meter, "reward aggregator", 3))
    with meter.unweighed():
        one.found()
    meter.mint(funder, AMOUNT)
    terms = {
        "federation": one.id,
        "firstRound": 1,
        "lastRound": 1,
        "label": LABEL,
        "token": meter.address(LOCAL_TOKEN),
        "amount": AMOUNT,
        "publisher": publisher.address,
        "arbiter": arbiter.address,
        "publishBy": meter.now + 90 * DAY,
        "challengeSeconds": DAY,
        "answerSeconds": 2 * DAY,
        "claimSeconds": 30 * DAY,
    }
    meter.relayed("fund a reward with permit", funder, REWARDS, "fund", terms, meter.permit(funder, REWARDS, AMOUNT))
    with meter.unweighed():
        one.train()

    place = (meter.chain.deployment.chain_id, meter.address(REWARDS))
    epoch = epoch_id(*place, funder.address, one.id, 1, 1, LABEL)
    rewarded = [meter.account(f"rewarded {number}") for number in range(SHARES)]
    # A tenth is left, which goes back.
    amount = AMOUNT * 9 // 10 // SHARES
    shares = [Share(who.address, amount, sha256(who.address.encode())[:16]) for who in rewarded]
    tree = reward_tree(*place, epoch, shares)
    meter.relayed("publish twenty shares", publisher, REWARDS, "publish", epoch, 1, tree.record, SHARES, SHARES * amount, URI)
    meter.relayed("object to shares", one.sites[0], REWARDS, "challenge", epoch, 1, REASON)
    meter.wait(DAY + 10)
    meter.relayed("confirm shares", arbiter, REWARDS, "confirm", epoch, 1, REASON)

    claims = [(epoch, index, share.account, share.amount, share.salt, tree.proof(index)) for index, share in enumerate(shares)]
    meter.relayed("claim a share, first", rewarded[0], REWARDS, "claim", *claims[0])
    meter.relayed("claim a share", rewarded[1], REWARDS, "claim", *claims[1])
    meter.sent("claim a share", REWARDS, "claim", *claims[2])
    meter.relayed("withdraw a reward", rewarded[0], REWARDS, "withdraw", meter.address(LOCAL_TOKEN), rewarded[0].address)
    meter.wait(30 * DAY)
    meter.sent("close a reward", REWARDS, "close", epoch)
