"""How models are run for several jobs at once, in slices short enough for people to wait for."""
