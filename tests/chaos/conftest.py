"""The fixtures of the workers' tests."""

from tests.workers.conftest import begins_at, context, long_video, media_folder, service

__all__ = ["begins_at", "context", "long_video", "media_folder", "service"]
