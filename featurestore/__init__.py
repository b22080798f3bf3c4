"""Features: defined once with Feast, joined, stored and read by one rule.

::

    definitions/    what data scientists write: entities, views, services
    transforms/     request-time features, pure functions of columns
    catalog/        the definitions as compiled, planned for a model, found and described
    offline/        the tables, and the parts that were pushed to them
    join/           the point-in-time join, its certificate, and the same out of core
    stores/         the online stores, SQLite and Redis, and materialisation into them
    push/           rows and events that come between materialisations
    online/         the reader that the server uses; it imports neither Feast nor Arrow
    wire/           Feast's byte formats without Feast
    feast_plugins/  the only place that imports Feast: the compiler, and our stores as Feast's own
    flights/        the sample project's tables

``freshness`` is the rule, ``vectors`` the way from columns to a model's input, ``columns`` and
``errors`` what all of these share.
"""
