"""What a data set may be used for, and the check that a stated purpose is among it. Pure: no clock, no network, no torch.

Used twice for every request: by the marketplace when it is made, and by the owner's agent before anything runs.
"""

from rexis.policy.duo import DataUsePolicy, Modifier, Permission, Purpose, evaluate

__all__ = ["DataUsePolicy", "Modifier", "Permission", "Purpose", "evaluate"]
