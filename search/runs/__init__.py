"""What lies on disk: the run folder, its journal, its environment."""
