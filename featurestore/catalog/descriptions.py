"""``Descriptions``: what people read about entities, views and services. Nothing is computed of it.

Kept apart from what is read and joined (``headrace.plan``), so that better words never look like a
changed definition.
"""

from pydantic import Field

from headrace.plan import KeyType
from headrace.spec import Part


class Description(Part):
    """What is said of a definition."""

    description: str = ""
    owner: str = ""
    tags: dict[str, str] = Field(default_factory=dict)


class FeatureDescription(Part):
    """What is said of one feature of a view."""

    description: str = ""
    tags: dict[str, str] = Field(default_factory=dict)


class EntityDescription(Description):
    """What is said of an entity, and the column that names it."""

    join_key: str
    dtype: KeyType


class ViewDescription(Description):
    """What is said of a view and of its features."""

    entities: tuple[str, ...] = ()
    features: dict[str, FeatureDescription] = Field(default_factory=dict)


class Descriptions(Part):
    """What the definitions say of themselves, by name."""

    entities: dict[str, EntityDescription] = Field(default_factory=dict)
    views: dict[str, ViewDescription] = Field(default_factory=dict)
    services: dict[str, Description] = Field(default_factory=dict)
