"""Decisions are tested on the rows that the workers' tests work on."""

from tests.workers.conftest import long_video, media_folder, service, workplace

__all__ = ["long_video", "media_folder", "service", "workplace"]
