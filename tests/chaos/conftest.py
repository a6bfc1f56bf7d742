"""The fixtures of the workers' tests."""

from tests.workers.conftest import long_video, media_folder, service, workplace

__all__ = ["long_video", "media_folder", "service", "workplace"]
