import shutil

import pytest

from tests.serving.page.browser import browsing


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page of a browser without a window; one for a file of tests."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if not program:
        pytest.skip("neither chromium nor chromium-browser is installed")
    with browsing(program, tmp_path_factory.mktemp("profile")) as page:
        yield page
