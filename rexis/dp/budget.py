"""The privacy ledger of one data set version: a release is debited before its noise is drawn, or refused."""

from collections.abc import Iterable

from rexis.dp.accountant import Event, epsilon
from rexis.errors import PrivacyBudgetExceededError


class PrivacyBudget:
    """A total (ε, δ) over all releases of one data set version, to whomever they go.

    The ledger itself is `events`; whoever keeps it durable writes each event down before the noise is drawn.

    Attributes:
        epsilon: the total that may be spent.
        delta: the δ at which it is measured.
    """

    def __init__(self, epsilon: float, delta: float, spent: Iterable[Event] = ()) -> None:
        """
        Args:
            spent: events of earlier releases, in order.

        Raises:
            ValueError: epsilon ≤ 0, or delta outside (0, 1).
        """
        if not (epsilon > 0 and 0 < delta < 1):
            raise ValueError(f"expected epsilon > 0 and delta in (0, 1), got {epsilon} and {delta}")
        self.epsilon = epsilon
        self.delta = delta
        self._events: list[Event] = list(spent)

    @property
    def events(self) -> tuple[Event, ...]:
        """Everything debited so far, in order."""
        return tuple(self._events)

    @property
    def spent(self) -> float:
        """ε of everything debited so far."""
        return epsilon(self._events, self.delta)

    def spend(self, event: Event) -> float:
        """Debit a release.

        Returns:
            ε spent, this release included.

        Raises:
            PrivacyBudgetExceededError: the total would be exceeded; nothing was debited.
        """
        after = epsilon([*self._events, event], self.delta)
        if after > self.epsilon:
            raise PrivacyBudgetExceededError(
                f"this release would bring the data set to epsilon {after:.4g} at delta {self.delta:g}; its total is {self.epsilon:.4g}, "
                f"{self.spent:.4g} are spent: add noise, ask less, or ask the owner for a new data set version"
            )
        self._events.append(event)
        return after
