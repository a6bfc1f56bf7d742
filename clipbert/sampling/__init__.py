"""Which instants of a video to look at: pure, no pixels."""
