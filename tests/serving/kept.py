"""A repository that many tests share, because none of them changes it: a store is dear to make."""

from serving.loading import ModelLoader
from serving.repository import ModelRepository
from tests.serving.conftest import ENDPOINT, VALUES, MemoryReader, Store


def kept_store(root, manifest, bundle_files):
    """A store with one release."""
    store = Store(str(root / "storage"), manifest, bundle_files)
    store.release(store.bundle())
    return store


def kept_repository(store):
    """A repository of its one endpoint."""
    loader = ModelLoader(store.root, lambda plan: MemoryReader(plan, VALUES))
    return ModelRepository([ENDPOINT], loader, poll_seconds=60)
