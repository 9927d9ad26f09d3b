"""What an augmentation policy is, and how it is applied.

A ``Policy`` is data; ``PolicyTransform`` applies it to PIL images and uint8 tensors, bit-exact with
Pillow. Nothing here knows of training or search.

Names are imported when they are first used, so that ``import policies`` needs neither torch nor
numpy.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
