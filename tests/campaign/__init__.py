"""Long runs that look for what is lost: `python -m tests.campaign chain --kills 50 --seed 1` (`make campaign`).

    chain   a marketplace with its chain, relay and chain index under a stream of operations from several threads, while SIGKILL hits
            chain, relay and index at seeded random moments; afterwards every operation is counted on the chain itself

A run prints one JSON object with its seed, the commit, and what it counted, and exits with 1 if anything was lost, done twice, or failed
without a reason that the chain confirms. `--json FILE` keeps it; the committed results are in `results/`. `make test` runs the same code
with three kills (`tests/services/test_chain_kills.py`).
"""
