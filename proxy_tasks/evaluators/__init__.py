"""Policy -> reward: one file an evaluator."""
