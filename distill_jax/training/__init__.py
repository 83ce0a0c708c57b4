"""State, step, loop, schedules, sharding, checkpoints."""
