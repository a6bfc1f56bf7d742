"""Jobs: their life, their leases, their events, and the pieces of work that outlive a worker."""
