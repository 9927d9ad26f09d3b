"""One file a command: from a configuration to a result in a run folder."""
