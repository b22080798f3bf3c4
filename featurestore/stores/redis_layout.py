"""Where things lie in Redis: Feast's own layout, and what Headrace puts beside it.

One hash an entity, its key Feast's entity key followed by the project's name. Its fields, for each
view that knows the entity::

    murmur3("<view>:<feature>")   Feast's: a Value message for each feature
    _ts:<view>                    Feast's: the event time, a Timestamp message
    _hr:<view>                    ours: the packed row (``featurestore.stores.packed``)

All fields of one view and entity are written by one command. ``_hr:`` counts only while its event
time is the one of ``_ts:``: where another Feast client has written since, Feast's fields are the
truth. Beside the entities there are two hashes a project, with a field for each view:
``headrace:views:<project>`` has its record (``StoredView`` as JSON), ``headrace:tags:<project>``
the tag of the generation that may be written now.

Source: feast 0.67, ``infra/online_stores/redis.py`` and ``helpers.py``.
"""

import mmh3


def entity_hash(entity_key: bytes, project: str) -> bytes:
    """The key of an entity's hash."""
    return entity_key + project.encode()


def feature_field(view: str, feature: str) -> bytes:
    """The field of a feature's ``Value`` message."""
    return int(mmh3.hash(f"{view}:{feature}", signed=False)).to_bytes(4, "little")


def timestamp_field(view: str) -> bytes:
    """The field of a view's event time."""
    return b"_ts:" + view.encode()


def packed_field(view: str) -> bytes:
    """The field of a view's packed row."""
    return b"_hr:" + view.encode()


def views_hash(project: str) -> bytes:
    """The key of the hash with the views' records."""
    return b"headrace:views:" + project.encode()


def tags_hash(project: str) -> bytes:
    """The key of the hash with the tags of the views' current generations."""
    return b"headrace:tags:" + project.encode()
