"""Who evaluates: the loop, the pool of Ray workers, and what they show."""
