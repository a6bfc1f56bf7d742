"""What a finetune is trained and measured on, as files that the model library reads.

A folder of it has `labels.jsonl`, one frozen label a line, and one or both of

    tokens/index.jsonl    a line a video: its stored visual tokens and the times of their clips
    videos/<id>.<ending>  links to the videos

Nothing is copied that is a file of this machine already.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path, PurePath
from typing import Any, Final
from uuid import UUID

import numpy as np
from safetensors.numpy import save_file
from sqlalchemy.orm import Session

from clipbert.datasets.kinds import write_line
from clipbert.datasets.token_index import INDEX_FILE, StoredVideo, write_index
from clipbert.errors import VideoError
from clipbert.video.formats import MEDIA_EXTENSIONS
from store.blobs import BlobStore
from store.errors import BlobNotFound, VideoNotFound
from store.labels.datasets import DatasetRepository
from store.labels.tables import DatasetLabel
from store.table_base import Task
from store.videos.repository import VideoRepository
from store.videos.tables import Clip, Video
from workers.child.context import WorkerContext
from workers.errors import JobError
from workers.finetuning.folder import remove_folder, write_lines
from workers.indexing.media import name_in_uri, open_video_media

LABELS_FILE: Final = "labels.jsonl"
TOKENS_FOLDER: Final = "tokens"
VIDEOS_FOLDER: Final = "videos"
_CHUNK: Final = 100
_UNKNOWN_ENDING: Final = ".mp4"  # what a file really is, the decoder sees in it
_NUM_LISTED: Final = 3


class DataFolder:
    """The files of one data set.

    Args:
        context: of this process.
        path: the folder.
        dataset_id: the data set.
        task: what it is for.
        on_video: called for each video that is looked at; what it raises ends the work.
    """

    def __init__(
        self,
        context: WorkerContext,
        path: Path,
        *,
        dataset_id: UUID,
        task: Task,
        on_video: Callable[[], object],
    ) -> None:
        self._context = context
        self._dataset_id, self._task = dataset_id, task
        self._on_video = on_video
        self.path = path
        self.labels = path / LABELS_FILE
        self.tokens = path / TOKENS_FOLDER
        self.videos = path / VIDEOS_FOLDER

    def write_labels(self) -> str:
        """Write the labels; gives the SHA-256 of the file."""
        self.path.mkdir(parents=True, exist_ok=True)
        with self._context.sessions.begin() as session:
            labels = DatasetRepository(session).labels(self._dataset_id)
            write_lines(self.labels, map(_label_line, labels))
        with self.labels.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def has_labels(self, split: str) -> bool:
        """Whether any of the written labels is of a split."""
        with self.labels.open(encoding="utf-8") as lines:
            return any(json.loads(line)["split"] == split for line in lines)

    def write_tokens(self, generation_id: UUID, *, with_vectors: bool) -> None:
        """Write the index of the visual tokens of all videos, once.

        Args:
            generation_id: whose tokens.
            with_vectors: the recall vectors too, which a zero-shot model compares with.

        Raises:
            JobError: `tokens_missing` or `video_deleted`, naming some of the videos.
        """
        if (self.tokens / INDEX_FILE).is_file():
            return
        self.tokens.mkdir(parents=True, exist_ok=True)
        missing: list[UUID] = []

        def stored() -> Iterator[tuple[str, StoredVideo]]:
            for videos in self._chunks():
                for video in videos:
                    self._on_video()
                    with self._context.sessions.begin() as session:
                        clips = VideoRepository(session).clips(video.id, generation_id)
                    try:  # in no transaction: a blob may come from far
                        yield str(video.id), self._stored_video(video, clips, with_vectors)
                    except (BlobNotFound, IndexError):
                        missing.append(video.id)

        write_index(self.tokens, stored())
        if missing:
            (self.tokens / INDEX_FILE).unlink()
            raise JobError(
                "tokens_missing", f"there are no longer visual tokens of {_listed(missing)}"
            )

    def link_videos(self) -> None:
        """Make the folder with links to all videos, once; what is not local is copied.

        Raises:
            JobError: `video_deleted`, or a video can no longer be read.
        """
        if self.videos.is_dir():
            return
        # Built beside and renamed: a folder that is there is whole.
        beside = self.path / f".{VIDEOS_FOLDER}"
        remove_folder(beside)
        beside.mkdir(parents=True)
        for videos in self._chunks():
            for video in videos:
                self._on_video()
                self._link(video, beside)
        beside.replace(self.videos)

    def remove_copies(self) -> None:
        """Forget tokens and links, whose files may be others now."""
        remove_folder(self.tokens)
        remove_folder(self.videos)

    def _chunks(self) -> Iterator[list[Video]]:
        """Yield the videos of the data set, a hundred at a time."""
        with self._context.sessions.begin() as session:
            labels = DatasetRepository(session).labels(self._dataset_id)
            video_ids = iter(dict.fromkeys(label.video_id for label in labels))
        while chunk := list(islice(video_ids, _CHUNK)):
            with self._context.sessions.begin() as session:
                videos = _find_videos(session, chunk)
            yield videos

    def _stored_video(self, video: Video, clips: Sequence[Clip], with_vectors: bool) -> StoredVideo:
        key = clips[0].tokens_key  # of all of them
        path = self._context.blobs.local_path(key)
        if path is None:
            path = self.tokens / f"{video.id}.safetensors"
            _copy_blob(self._context.blobs, key, path, self._on_video)
        elif not path.is_file():
            raise BlobNotFound(key)
        vectors = [list(clip.vector) for clip in clips if clip.vector is not None]
        vectors_path = None
        if with_vectors and len(vectors) == len(clips):
            vectors_path = Path(f"{video.id}.vectors.safetensors")
            save_file({"vectors": np.array(vectors, dtype=np.float32)}, self.tokens / vectors_path)
        return StoredVideo(
            path,
            tuple((clip.start_seconds, clip.end_seconds) for clip in clips),
            video.duration_seconds or 0.0,
            vectors_path,
        )

    def _link(self, video: Video, folder: Path) -> None:
        name = video.filename or name_in_uri(video.uri)
        ending = PurePath(name).suffix.lower()
        link = folder / f"{video.id}{ending if ending in MEDIA_EXTENSIONS else _UNKNOWN_ENDING}"
        try:
            with ExitStack() as stack:
                media = stack.enter_context(
                    open_video_media(
                        video,
                        roots=self._context.media_roots,
                        blobs=self._context.blobs,
                        on_piece=self._on_video,
                    )
                )
                is_local = video.blob_key is None or (
                    self._context.blobs.local_path(video.blob_key) is not None
                )
                if is_local:
                    link.symlink_to(media.real_path)
                else:
                    shutil.copyfile(media.real_path, link)
        except VideoError as error:
            raise JobError(error.code, str(error)) from error


def _label_line(label: DatasetLabel) -> dict[str, Any]:
    # The right choice by its index: the hash of what a finetune under way wrote so is compared.
    content = {name: value for name, value in label.content.items() if name != "answer"}
    if not content.get("choices"):
        content["answer"] = label.content.get("answer")
    return write_line(content, video=str(label.video_id), split=str(label.split))


def _find_videos(session: Session, video_ids: Iterable[UUID]) -> list[Video]:
    videos, deleted = [], []
    for video_id in video_ids:
        try:
            videos.append(VideoRepository(session).get(video_id))
        except VideoNotFound:
            deleted.append(video_id)
    if deleted:
        raise JobError("video_deleted", f"deleted meanwhile: {_listed(deleted)}")
    return videos


def _copy_blob(blobs: BlobStore, key: str, target: Path, on_piece: Callable[[], object]) -> None:
    with blobs.as_local_file(key, on_piece=on_piece) as source:
        shutil.copyfile(source, target)


def _listed(video_ids: Sequence[UUID]) -> str:
    listed = ", ".join(f"video {video_id}" for video_id in video_ids[:_NUM_LISTED])
    more = len(video_ids) - _NUM_LISTED
    return f"{listed} and {more} more" if more > 0 else listed
