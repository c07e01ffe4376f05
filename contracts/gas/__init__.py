"""What calls of the contracts cost, in gas: `python -m contracts.gas` measures them on a passing anvil, `--check` compares.

Every scenario has keys, nonces and times of its own that never change, so that a figure changes with the contracts alone. "relayed"
means through the Forwarder, signed by an account without ether; "sent" means by an account that pays for itself.
"""
