"""Sampled rows against a reading of the flights one at a time."""

import numpy as np
import pytest

HOUR = np.timedelta64(3_600_000_000, "us")


def sampled(table, rows=30, seed=4):
    chosen = np.sort(np.random.default_rng(seed).choice(table.num_rows, rows, replace=False))
    found = table.take(chosen)
    return zip(found.to_pylist(), found["event_timestamp"].to_numpy(), strict=True)


def arrivals(outcomes, row, keys):
    """The flights of the row's keys that arrived."""
    return [
        flight
        for flight in outcomes
        if flight["arrival"] is not None and all(flight[key] == row[key] for key in keys)
    ]


@pytest.mark.parametrize(
    ("table", "keys", "windows"),
    [
        ("carrier_origin_delays", ["carrier", "origin"], {"24h": 24, "7d": 168}),
        ("destination_delays", ["dest"], {"6h": 6, "24h": 24}),
    ],
)
def test_trailing_delays_are_those_of_the_arrivals_known_by_then(
    small, outcomes, table, keys, windows
):
    for row, now in sampled(small[table]):
        for name, hours in windows.items():
            delays = [
                flight["arrival_delay_minutes"]
                for flight in arrivals(outcomes, row, keys)
                if now - hours * HOUR < flight["arrival"] <= now
            ]
            assert row[f"arrival_delay_mean_{name}_minutes"] == pytest.approx(np.mean(delays))
            late = np.mean([delay > 15 for delay in delays])
            assert row[f"arrivals_late_share_{name}"] == pytest.approx(late)


def test_the_previous_leg_is_the_one_that_arrived_at_the_rows_time(small, outcomes):
    a_monday = np.datetime64("2012-12-31", "us")
    for row, now in sampled(small["aircraft_previous_leg"]):
        [leg] = [f for f in arrivals(outcomes, row, ["tailnum"]) if f["arrival"] == now]
        for name in ("arrival_delay_minutes", "departure_delay_minutes", "air_time_minutes"):
            assert row[name] == leg[name]
        assert row["distance_miles"] == leg["distance_miles"]
        assert row["arrival_hour_of_week"] == pytest.approx((now - a_monday) / HOUR % 168)


@pytest.mark.parametrize(
    ("table", "keys"),
    [
        ("carrier_origin_delays", ["carrier", "origin"]),
        ("destination_delays", ["dest"]),
        ("aircraft_previous_leg", ["tailnum"]),
    ],
)
def test_every_arrival_makes_a_row_and_no_key_has_two_in_one_minute(year, flights, table, keys):
    def moments(rows, time):
        columns = [rows[key].to_pylist() for key in keys]
        return list(zip(*columns, rows[time].to_numpy().tolist(), strict=True))

    found = moments(year[table], "event_timestamp")
    arrived = moments(flights.filter(flights["arrival"].is_valid()), "arrival")
    assert len(found) == len(set(found))
    assert set(found) == set(arrived)
