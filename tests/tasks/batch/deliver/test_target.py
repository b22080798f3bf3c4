import pytest

from tasks.batch.deliver import DeliveryRefused, parse_target


def test_a_table_without_a_schema_is_in_public():
    target = parse_target("postgresql://ann@db:5433/flights/delay?sslmode=require")
    assert (target.database, target.schema_name, target.table) == (
        "postgresql://ann@db:5433/flights",
        "public",
        "delay",
    )
    assert target.options == (("sslmode", "require"),)


@pytest.mark.parametrize(
    ("to", "reason"),
    [
        ("mysql://db/x/y", "mysql is not known"),
        ("postgresql://db/only", "does not name a database and a table"),
        ("postgresql://db/flights/drop table x", "is no name of a schema or table"),
        ("postgresql://db/flights/a.b.c", "is no name of a schema or table"),
        ("bigquery://my-project/scores", "does not name a project, a dataset and a table"),
        ("bigquery://my-project/sc-ores/t", "is no name of a dataset"),
        ("bigquery://P/scores/t", "is no name of a project"),
    ],
)
def test_a_target_that_cannot_be_is_refused_with_the_right_form(to, reason):
    with pytest.raises(DeliveryRefused, match=reason):
        parse_target(to)


@pytest.mark.parametrize(
    "to", ["postgresql://ann:hunter2@db/flights/x", "postgresql://db/flights/x?password=hunter2"]
)
def test_a_secret_in_the_url_is_refused_and_not_repeated(to):
    with pytest.raises(DeliveryRefused, match="PGPASSWORD") as refused:
        parse_target(to)
    assert "hunter2" not in str(refused.value)
