"""What a changed definition would take away from a model that reads the older one.

A model's plan says how it reads a view: which features, of which types, by which keys. A view may
gain features or get another TTL (the plan pins its own) and the model does not notice. Whatever
else changes needs a new name beside the old one: ``weather_v2``.
"""

from headrace.plan import ViewRead


def losses(wanted: ViewRead, now: ViewRead | None) -> tuple[str, ...]:
    """Say what of ``wanted`` the view as defined ``now`` no longer gives; empty if all is well.

    Args:
        wanted: the read in a model's plan.
        now: the whole view of the same name; None: it is no longer defined.
    """
    if now is None:
        return ("it is no longer defined, so its values would only grow older",)
    return (*_places(wanted, now), *_features(wanted, now))


def _places(wanted: ViewRead, now: ViewRead) -> list[str]:
    pairs = {
        "its table": (wanted.table, now.table),
        "its join keys": (_keys(wanted), _keys(now)),
        "its event time": (wanted.event_timestamp, now.event_timestamp),
        "its created time": (wanted.created_timestamp, now.created_timestamp),
    }
    return [
        f"{what} would be {new or 'none'} instead of {old or 'none'}"
        for what, (old, new) in pairs.items()
        if old != new
    ]


def _features(wanted: ViewRead, now: ViewRead) -> list[str]:
    types = {feature.name: feature.dtype for feature in now.features}
    found = []
    for feature in wanted.features:
        if feature.name not in types:
            found.append(f"feature {feature.name} would be gone")
        elif types[feature.name] != feature.dtype:
            new = types[feature.name]
            found.append(f"feature {feature.name} would be {new} instead of {feature.dtype}")
    return found


def _keys(read: ViewRead) -> str:
    return ", ".join(f"{key.name} {key.dtype}" for key in sorted(read.join_keys, key=str))
