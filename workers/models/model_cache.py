"""The models that a process has loaded. Imports torch: for children only."""

from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

import structlog

from clipbert.inference.clipbert import ClipBert
from store.blobs import BlobStore
from store.models.tables import Model
from workers.models.local_models import find_local_folder

log = structlog.get_logger(__name__)


class ModelCache:
    """Loads models from the blob store and keeps the last used ones.

    Args:
        blobs: where the model folders are.
        device: cpu or cuda:N.
        capacity: models kept; the least recently used goes first.
        folder: where folders are copied to that are not local already; None for a temporary one.
    """

    def __init__(
        self, blobs: BlobStore, *, device: str, capacity: int, folder: Path | None
    ) -> None:
        self._blobs = blobs
        self._capacity = capacity
        self._folder = folder
        self._models: OrderedDict[UUID, ClipBert] = OrderedDict()
        self._loading: dict[UUID, Future[ClipBert]] = {}
        self._loader = ThreadPoolExecutor(1, "load")
        self.device = device

    def get(self, model: Model) -> ClipBert:
        """Return a model ready to run, loading it if need be.

        Raises:
            CheckpointError: the folder in the blob store is not what was registered.
        """
        if not self.has(model):
            loading = self._loading.pop(model.id, None)
            self._make_room()
            self._models[model.id] = self._load(model) if loading is None else loading.result()
        self._models.move_to_end(model.id)
        return self._models[model.id]

    def has(self, model: Model) -> bool:
        """Whether `get` gives a model without loading it."""
        for model_id, loading in list(self._loading.items()):
            if loading.done() and loading.exception() is None:
                self._models[model_id] = self._loading.pop(model_id).result()
        return model.id in self._models

    def begin_loading(self, model: Model) -> bool:
        """Load a model in the background, unless it is loaded.

        Returns:
            Whether there is nothing to wait for: it is there, could not be loaded, or has no room
            beside others.
        """
        if self.has(model):
            return True
        if model.id not in self._loading:
            if len(self._loading) + 1 >= self._capacity:
                return True
            self._make_room()
            self._loading[model.id] = self._loader.submit(self._load, model)
        return self._loading[model.id].done()

    def _make_room(self) -> None:
        while self._models and len(self._models) + len(self._loading) >= self._capacity:
            self._models.popitem(last=False)

    def _load(self, model: Model) -> ClipBert:
        folder = find_local_folder(self._blobs, model, folder=self._folder)
        loaded = ClipBert.for_serving(folder, device=self.device)
        log.info("model.loaded", model=model.name, model_id=str(model.id), device=self.device)
        return loaded
