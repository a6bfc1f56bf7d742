"""How a job is held and, with others, grouped: what every kind of work has in common."""
