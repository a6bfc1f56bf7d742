"""Decisions are tested on the rows that the workers' tests work on."""

from tests.workers.conftest import begins_at, context, long_video, media_folder, service

__all__ = ["begins_at", "context", "long_video", "media_folder", "service"]
