"""Long runs that look for what is lost: `python -m tests.campaign chain --kills 50 --seed 1` (`make campaign` runs all).

    chain        a marketplace with its chain, relay and chain index under a stream of operations from several threads, while SIGKILL hits
                 chain, relay and index at seeded random moments; afterwards every operation is counted on the chain itself
    federation   twenty agents as processes train with an aggregator, while SIGKILL hits an agent, the aggregator's API and its background
                 process; afterwards every round is counted on the chain, and every sum is made again from the sites' own rows
    commits      the aggregator dies before and after every commit of a round: the background process at each, the API once at each kind
    secagg       every drop-out, bad message and equivocation in one attempt of a secure aggregation, among 3, 5, 10 and 20 sites

A run prints one JSON object with the commit, its seed if there is one, and what it counted, and exits with 1 if anything was lost, done
twice, or failed without a reason that the chain confirms. `--json FILE` keeps it; the committed results are in `results/`. `make test` runs
samples: `tests/services/test_chain_kills.py`, `tests/services/test_aggregator_kills.py`, `tests/attacks/test_secagg_matrix.py`.
"""
