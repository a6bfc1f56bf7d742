"""The fixtures of the workers' tests."""

from tests.workers.conftest import media_folder, service, workplace

__all__ = ["media_folder", "service", "workplace"]
