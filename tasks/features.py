"""Feature definitions and the online store."""

from datetime import datetime

from prefect.logging import get_run_logger

from featurestore.stores.materialize import ViewMaterialized
from headrace.settings import Settings
from tasks import readers
from tasks.step import step


@step("materialize feature views")
def materialize(
    settings: Settings, *, until: datetime | None, rebuild: bool = False, replace: bool = False
) -> tuple[ViewMaterialized, ...]:
    """Bring every feature view's latest values into the online store.

    Safe to run twice, and at once with another run; a killed one is gone on with by the next.

    Args:
        settings: where the stores are.
        until: only what was known before this moment; None for everything there is.
        rebuild: forget what is there and write every view from the start.
        replace: rebuild changed views even under a model that an endpoint runs.

    Raises:
        ReadByLiveModel: if a view that a running model reads has changed, unless ``replace``.
    """
    from featurestore.catalog.catalog import load_catalog
    from featurestore.offline.tables import table_span
    from featurestore.stores.materialize import materialize as materialize_views

    logger = get_run_logger()
    logger.info("compiling the feature definitions, where they have changed")
    catalog = load_catalog(settings)
    if not replace:
        readers.check_nothing_lost(settings, catalog)
    if until is None:
        root = settings.uri("offline")
        until = max(table_span(root, v.table, v.known_timestamp)[1] for v in catalog.views)
    return materialize_views(settings, catalog, until=until, rebuild=rebuild, log=logger)
