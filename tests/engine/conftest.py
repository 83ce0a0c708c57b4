"""What the tests of tables share."""

import pytest


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """One home for all tables of a file: a teacher that one fine-tuned serves the others."""
    return tmp_path_factory.mktemp("home")
