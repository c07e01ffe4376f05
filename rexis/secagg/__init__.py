"""Secure aggregation (Bonawitz et al., CCS 2017, active-adversary variant): the arithmetic that both sides share.

The aggregator learns the sum of at least `min_survivors` updates and nothing about a single one. Pure: no input or output, no torch.
"""
