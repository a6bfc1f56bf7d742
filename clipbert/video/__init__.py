"""Read video files: what they are, and the frames on screen at given instants."""
