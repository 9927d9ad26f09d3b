"""Reduced data sets, child models, and evaluators: augmentation policy -> reward.

Names are imported when they are first used, so that `import proxy_tasks` needs neither torch nor
numpy.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
