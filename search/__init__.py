"""Searchers, spaces, the engine that runs them, and one function for each kind of run.

    from search import Config, run_search

    result = run_search(Config.of("search", evaluations=200), "runs/first")

Names are imported when they are first used: the command line lives in this package, and its
--help must not wait for torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
