import pytest

from registry.errors import RegistryUnreachable


@pytest.mark.parametrize(
    "uri", ["postgresql://me:pa:ss@db/x", "postgresql+psycopg2://me:pa@db/x", "https://:pa@db"]
)
def test_a_password_in_an_address_is_not_told(uri):
    error = RegistryUnreachable(uri, f"connection to {uri} failed")
    assert "pa" not in str(error).replace("password", "")
    assert "***@db" in error.uri
