"""What a run will take is told before it starts, and what it may not cost is refused."""

import pytest

from headrace.errors import SettingRefused
from tasks.batch.estimate import (
    BudgetExceeded,
    PriceUnknown,
    Probe,
    check_budget,
    choose_estimate,
    estimate,
    probe,
)
from tasks.batch.plan import Files, Options, make_plan
from tasks.batch.prices import Prices, read_prices

SLOW = Probe(rows=1000, open_seconds=3.0, shard_seconds=0.5, row_seconds=1.0, rejected_share=0.0)
FAST = SLOW.model_copy(update={"row_seconds": 1e-6, "open_seconds": 0.1})


@pytest.fixture
def plan(settings, plain, write_input, numbers):
    """Four shards of ten rows."""
    source = Files(uri=str(write_input(numbers(40), row_group_size=10)))
    return make_plan(settings, source, Options(rows_per_shard=10), digest=plain)


def on_kubernetes(plan, measured=SLOW, kept=frozenset(), workers=2, price=3.6):
    prices = Prices(worker_hour={"kubernetes": price} if price is not None else {})
    return estimate(plan, measured, kept=kept, kind="kubernetes", workers=workers, prices=prices)


def test_seconds_are_those_of_the_work_shared_by_the_workers_and_their_start(plan):
    found = on_kubernetes(plan)
    assert found.seconds == pytest.approx(60 + (2 * 3.0 + 2 * 0.5 + 40 * 1.0) / 2)
    assert found.worker_seconds == pytest.approx(2 * found.seconds)
    assert found.price == pytest.approx(found.worker_seconds / 1000)


def test_shards_that_are_kept_take_nothing(plan):
    kept = frozenset(shard.id for shard in plan.shards[:3])
    assert on_kubernetes(plan, kept=kept).seconds == pytest.approx(60 + 3.0 + 10.0)
    everything = frozenset(shard.id for shard in plan.shards)
    found = on_kubernetes(plan, kept=everything)
    assert (found.kept_shards, found.seconds, found.price) == (4, 0, 0)


def test_a_budget_below_the_price_or_without_one_is_refused(plan):
    found = on_kubernetes(plan)
    check_budget(found, found.price)
    with pytest.raises(BudgetExceeded, match=r"would cost 0\.17 USD .* the budget is 0\.10 USD"):
        check_budget(found, 0.1)
    with pytest.raises(PriceUnknown, match=r"\[worker_hour\] kubernetes"):
        check_budget(on_kubernetes(plan, price=None), 0.1)
    check_budget(on_kubernetes(plan, price=None), None)


@pytest.mark.parametrize(
    ("measured", "where", "kind"),
    [
        (FAST, "auto", "here"),
        (SLOW, "auto", "local"),
        (FAST, "cluster", "local"),
        (SLOW, "here", "here"),
    ],
)
def test_workers_are_started_only_where_that_is_sooner(settings, plan, measured, where, kind):
    found = choose_estimate(
        settings, plan, measured, kept=frozenset(), where=where, prices=Prices()
    )
    assert found.kind == kind
    assert found.price == 0


def test_the_probe_scores_rows_and_writes_nothing(settings, plan):
    measured = probe(settings, plan)
    assert measured.rows == 10
    assert 0 < measured.row_seconds < 0.1
    assert not (settings.home / "storage" / "predictions").exists()


def test_prices_are_read_and_a_wrong_one_is_named(tmp_path):
    path = tmp_path / "prices.toml"
    assert read_prices(path).of("local", 3600) == 0
    path.write_text('currency = "EUR"\n[worker_hour]\nkubernetes = 0.12\n')
    assert (read_prices(path).currency, read_prices(path).of("kubernetes", 1800)) == ("EUR", 0.06)
    path.write_text('[worker_hour]\nkubernetes = "cheap"\n')
    with pytest.raises(SettingRefused, match=r"worker_hour\.kubernetes = 'cheap' is refused"):
        read_prices(path)
