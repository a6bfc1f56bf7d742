"""How a network runs: on which device, in which precision."""
