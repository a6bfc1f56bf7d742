"""The models that a process has loaded. Imports torch: for children only."""

import tempfile
from collections import OrderedDict
from pathlib import Path
from uuid import UUID

import structlog
import torch

from clipbert.errors import CheckpointError
from clipbert.inference import Predictor
from store.blobs import BlobStore
from store.errors import BlobNotFound
from store.tables import Model
from workers.media import hash_file
from workers.model_folder import Manifest, read_manifest

log = structlog.get_logger(__name__)


class ModelCache:
    """Loads models from the blob store and keeps the last used ones.

    Args:
        blobs: where the model folders are.
        device: auto, cpu or cuda:N.
        capacity: models kept; the least recently used goes first.
        folder: where folders are copied to that are not local already; None for a temporary one.
    """

    def __init__(
        self, blobs: BlobStore, *, device: str, capacity: int, folder: Path | None
    ) -> None:
        self._blobs = blobs
        self._capacity = capacity
        self._folder = folder
        self._predictors: OrderedDict[UUID, Predictor] = OrderedDict()
        self.device = resolve_device(device)

    def get(self, model: Model) -> Predictor:
        """Give a model ready to run, loading it if need be.

        Raises:
            CheckpointError: the folder in the blob store is not what was registered.
        """
        predictor = self._predictors.get(model.id)
        if predictor is None:
            while len(self._predictors) >= self._capacity:
                self._predictors.popitem(last=False)
            predictor = Predictor.load(self._local_folder(model), device=self.device)
            self._predictors[model.id] = predictor
            log.info("model.loaded", model=model.name, model_id=str(model.id), device=self.device)
        self._predictors.move_to_end(model.id)
        return predictor

    def _local_folder(self, model: Model) -> Path:
        manifest = read_manifest(self._blobs, model.folder_key)
        if manifest.sha256 != model.sha256:
            raise CheckpointError(f"the files of model {model.name} are not those registered")
        folder = self._folder_in_blobs(model.folder_key, manifest)
        if folder is None:
            folder = self._copied_folder(model.folder_key, manifest)
        for name, sha256 in manifest.files.items():
            if hash_file(folder / name) != sha256:
                raise CheckpointError(f"{name} of model {model.name} is not what was registered")
        return folder

    def _folder_in_blobs(self, folder_key: str, manifest: Manifest) -> Path | None:
        try:
            paths = [self._blobs.local_path(f"{folder_key}/{name}") for name in manifest.files]
        except BlobNotFound as error:
            raise CheckpointError(f"the model folder {folder_key} is incomplete") from error
        folders = {path.parent for path in paths if path is not None}
        return folders.pop() if None not in paths and len(folders) == 1 else None

    def _copied_folder(self, folder_key: str, manifest: Manifest) -> Path:
        root = self._folder or Path(tempfile.gettempdir()) / "clipbert-models"
        folder = root / manifest.sha256
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name, sha256 in manifest.files.items():
            target = folder / name
            if target.exists() and hash_file(target) == sha256:
                continue
            with self._blobs.as_local_file(f"{folder_key}/{name}") as source:
                # Written beside and renamed, since another worker may be reading the old one.
                with tempfile.NamedTemporaryFile(dir=folder, delete=False) as copy:
                    copy.write(source.read_bytes())
                Path(copy.name).replace(target)
        return folder


def resolve_device(device: str) -> str:
    """Turn `auto` into the first CUDA device, or the CPU if there is none."""
    if device == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    return device
