"""ε never falls: not when a release is added, nor when it is made louder."""

from hypothesis import given, settings
from hypothesis import strategies as st

from rexis.dp.accountant import Event, GaussianEvent, LaplaceEvent, SkellamEvent, epsilon
from rexis.dp.budget import PrivacyBudget
from rexis.errors import PrivacyBudgetExceededError

DELTA = 1e-6
multipliers = st.floats(2.0, 50.0)
events = st.one_of(
    st.builds(GaussianEvent, multipliers, st.just(1.0), st.integers(1, 5)),
    st.builds(GaussianEvent, multipliers, st.sampled_from([0.01, 0.2]), st.integers(1, 20)),
    st.builds(LaplaceEvent, multipliers, st.integers(1, 3)),
    st.builds(SkellamEvent, st.just(300.0), st.just(100.0), multipliers.map(lambda multiplier: (100 * multiplier) ** 2), st.integers(1, 3)),
)


@settings(max_examples=15, deadline=None)
@given(ledger=st.lists(events, max_size=3), added=events)
def test_epsilon_never_falls_as_events_are_added(ledger: list[Event], added: Event) -> None:
    before, after = epsilon(ledger, DELTA), epsilon([*ledger, added], DELTA)
    assert after >= before >= 0
    assert epsilon([added, *ledger], DELTA) >= epsilon([added], DELTA)


@settings(max_examples=15, deadline=None)
@given(quieter=multipliers, factor=st.floats(1.1, 3.0))
def test_less_noise_costs_more(quieter: float, factor: float) -> None:
    assert epsilon([GaussianEvent(quieter / factor)], DELTA) > epsilon([GaussianEvent(quieter)], DELTA)
    assert epsilon([LaplaceEvent(quieter / factor)], DELTA) > epsilon([LaplaceEvent(quieter)], DELTA)


@settings(max_examples=10, deadline=None)
@given(releases=st.lists(events, min_size=1, max_size=6), total=st.floats(0.2, 2.0))
def test_a_ledger_never_holds_more_than_its_total(releases: list[Event], total: float) -> None:
    budget, spent = PrivacyBudget(total, DELTA), 0.0
    for event in releases:
        try:
            after = budget.spend(event)
        except PrivacyBudgetExceededError:
            assert epsilon([*budget.events, event], DELTA) > total
            continue
        assert spent <= after <= total
        spent = after
    assert budget.spent == spent
