"""Request-time features of a flight: when it is due on New York's clocks, and the plane's age.

All three airports lie in one time zone. Times that are missing, or outside 1970 to 2099, give
missing features.
"""

import numpy as np

from featurestore.flights.clock import local_time
from headrace.transform import transform


@transform("scheduled_departure")
def scheduled_hour(scheduled_departure: np.ndarray) -> np.ndarray:
    """Hour of the day of scheduled departure in New York, minutes as a fraction: 0 to below 24."""
    local = local_time(scheduled_departure, "America/New_York")
    hours: np.ndarray = (local - local.astype("datetime64[D]")) / np.timedelta64(1, "h")
    return hours


@transform("scheduled_departure")
def scheduled_weekday(scheduled_departure: np.ndarray) -> np.ndarray:
    """Day of the week of scheduled departure in New York: 0 on Monday to 6 on Sunday."""
    day = local_time(scheduled_departure, "America/New_York").astype("datetime64[D]")
    a_monday = np.datetime64("1969-12-29", "D")
    weekdays: np.ndarray = (day - a_monday) / np.timedelta64(1, "D") % 7
    return weekdays


@transform("scheduled_departure", "planes__year_built")
def plane_age_years(scheduled_departure: np.ndarray, year_built: np.ndarray) -> np.ndarray:
    """Calendar years between the plane's year of building and the scheduled departure's (UTC)."""
    since_1970 = scheduled_departure.astype("datetime64[Y]") - np.datetime64("1970", "Y")
    years: np.ndarray = 1970 + since_1970 / np.timedelta64(1, "Y") - year_built
    return years


@transform("scheduled_departure", "aircraft_previous_leg__arrival_hour_of_week")
def hours_since_previous_leg(
    scheduled_departure: np.ndarray, arrival_hour_of_week: np.ndarray
) -> np.ndarray:
    """Hours from the arrival of the plane's previous leg to scheduled departure: 0 to below 168.

    The previous leg is at most three days old (the view's TTL), so the hours of the week tell the
    two moments apart.
    """
    a_monday = np.datetime64("1969-12-29", "us")
    departure_hour = (scheduled_departure - a_monday) / np.timedelta64(1, "h")
    hours: np.ndarray = (departure_hour - arrival_hour_of_week) % 168
    return hours
