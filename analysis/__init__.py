"""Reads run folders and policies; tables, statistics, pictures, reports. Never trains.

Names are imported when they are first used, so that `import analysis` waits for no library.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
