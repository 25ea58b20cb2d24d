"""What passing trouble took from the learning rate is given back, once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aios.auto_lr.grouped_scheduler import Rates
from aios.auto_lr.restoration import TRUST, Restoration

CALM, LOW, LOWER = Rates(1e-3, {"router": 0.5}), Rates(5e-4, {"router": 0.5}), Rates(2.5e-4, {"router": 0.5})


def after_calm() -> Restoration:
    restoration = Restoration()
    assert restoration.observe(1, False, True, CALM) is None
    return restoration


def test_the_rate_comes_back_when_the_trouble_has_passed() -> None:
    restoration = after_calm()
    assert restoration.observe(2, True, False, LOW) is None
    assert restoration.observe(3, False, False, LOW) is None
    assert restoration.observe(20, False, True, LOW) == CALM


def test_trouble_that_comes_back_with_the_rate_keeps_what_it_took() -> None:
    restoration = after_calm()
    restoration.observe(2, True, False, LOW)
    assert restoration.observe(20, False, True, LOW) == CALM
    restoration.observe(20 + TRUST, True, False, LOW)
    assert restoration.observe(20 + TRUST + 20, False, True, LOW) is None


def test_nothing_is_owed_after_a_rewind() -> None:
    restoration = after_calm()
    restoration.observe(2, True, False, LOW)
    restoration.forfeit(3)
    assert restoration.observe(30, False, True, LOWER) is None


def test_a_skip_that_costs_nothing_owes_nothing() -> None:
    restoration = after_calm()
    restoration.observe(2, True, False, CALM)
    assert restoration.observe(20, False, True, LOW) is None  # what the rules took since is theirs to take


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.sampled_from([CALM, LOW, LOWER]))))
def test_a_saved_state_goes_on_alike_and_never_raises_above_calm(steps: list[tuple[bool, bool, Rates]]) -> None:
    one, other = Restoration(), Restoration()
    for step, (trouble, healthy, rates) in enumerate(steps):
        other.load_state_dict(one.state_dict())
        owed = one.observe(step, trouble, healthy, rates)
        assert owed == other.observe(step, trouble, healthy, rates)
        assert owed is None or CALM.lr >= owed.lr > rates.lr
