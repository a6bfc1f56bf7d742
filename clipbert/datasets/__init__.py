"""What people say of videos, as files and as answers. Never imports torch."""
