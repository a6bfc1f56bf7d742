"""The fixtures of the workers' tests."""

from tests.workers.conftest import context, long_video, media_folder, service

__all__ = ["context", "long_video", "media_folder", "service"]
