"""The roof: the command line, which may import every package."""
