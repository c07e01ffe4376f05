"""Attacks on what Rexis itself offers, as library functions: what breaks, given what the attacker knows; and the privacy report on them."""

from rexis.attacks.examination import privacy_report
from rexis.attacks.report import PrivacyReport

__all__ = ["PrivacyReport", "privacy_report"]
