"""What tests of several parts of the library share."""

import pytest

from radlens.bundles import Bundle


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A small untrained bundle."""
    from tiny_bundle import make_bundle

    return make_bundle(tmp_path_factory.mktemp("bundle"))
