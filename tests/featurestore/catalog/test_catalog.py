from featurestore.catalog.catalog import Catalog, load_catalog


def test_a_catalog_file_of_another_format_is_compiled_anew(tiny_repository, at_home):
    package = tiny_repository()
    first = load_catalog(at_home, repository=package)
    (path,) = (at_home.home / "catalog").glob("*.json")
    path.write_text('{"format": "older"}')
    assert load_catalog(at_home, repository=package) == first
    assert Catalog.model_validate_json(path.read_bytes()) == first
