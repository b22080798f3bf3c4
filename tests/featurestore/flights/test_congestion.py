"""Sampled rows against a reading of the flights one at a time."""

import numpy as np
import pyarrow as pa
import pytest

from featurestore.flights.congestion import GIVEN_UP_MINUTES, origin_congestion

MINUTE = np.timedelta64(60_000_000, "us")


def sampled(table, rows=30, seed=3):
    chosen = np.sort(np.random.default_rng(seed).choice(table.num_rows, rows, replace=False))
    found = table.take(chosen)
    return zip(found.to_pylist(), found["event_timestamp"].to_numpy(), strict=True)


def left_by(outcomes, origin, moment):
    """Delays and moments of the flights due before ``moment`` that had left by then."""
    for flight in outcomes:
        due, left = flight["scheduled_departure"], flight["departure"]
        if flight["origin"] == origin and due < moment and left is not None and left <= moment:
            yield flight["departure_delay_minutes"], max(left, due + MINUTE)


def mean(values):
    return pytest.approx(np.mean(values)) if values else None


def test_departures_of_the_last_hours_are_those_known_at_that_minute(small, outcomes):
    for row, now in sampled(small["origin_congestion"]):
        left = list(left_by(outcomes, row["origin"], now))
        hour = [delay for delay, when in left if when > now - 60 * MINUTE]
        assert row["departures_1h"] == len(hour)
        assert row["departure_delay_mean_1h_minutes"] == mean(hour)
        assert row["departures_late_share_1h"] == mean([delay > 15 for delay in hour])
        three = [delay for delay, when in left if when > now - 180 * MINUTE]
        assert row["departure_delay_mean_3h_minutes"] == mean(three)


def test_overdue_flights_are_past_their_schedule_and_have_not_left(small, outcomes):
    for row, now in sampled(small["origin_congestion"]):
        waiting = [
            (now - flight["scheduled_departure"]) / MINUTE
            for flight in outcomes
            if flight["origin"] == row["origin"]
            and (flight["departure"] is None or flight["departure"] > now)
        ]
        overdue = [minutes for minutes in waiting if 0 < minutes < GIVEN_UP_MINUTES]
        assert row["overdue_departures"] == len(overdue)
        assert row["overdue_mean_minutes"] == mean(overdue)


def test_every_origin_has_a_row_every_five_minutes(small):
    table = small["origin_congestion"]
    for origin in ("EWR", "JFK", "LGA"):
        times = table.filter(np.array(table["origin"].to_pylist()) == origin)
        steps = np.diff(times["event_timestamp"].to_numpy())
        assert (steps == 5 * MINUTE).all()


@pytest.mark.parametrize("minutes", [-30, 0, 1, 600])
def test_a_flight_never_meets_its_own_outcome_at_its_scheduled_departure(flights, minutes):
    days = flights.slice(0, 3000)
    scheduled = days["scheduled_departure"].to_numpy()
    own = int(np.flatnonzero(scheduled.astype(np.int64) % (5 * 60_000_000) == 0)[700])
    due = scheduled[own]  # on the grid: a row is made in that very minute
    departure = days["departure"].to_numpy().copy()
    departure[own] = due + minutes * MINUTE
    changed = pa.array(departure, days.schema.field("departure").type)
    other = days.set_column(days.column_names.index("departure"), "departure", changed)
    before, after = (
        table.filter(table["event_timestamp"].to_numpy() <= due)
        for table in map(origin_congestion, (days, other))
    )
    assert before.equals(after)
