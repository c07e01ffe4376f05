"""One module per subject: `python -m benchmarks NAME --json [--quick]`.

Each figure stands beside its plaintext or peer counterpart, measured in the same run.
"""
