"""tqdm's bar for where a program runs. In a notebook without ipywidgets that is a plain one; tqdm
would say so at every import."""

import warnings

from tqdm import TqdmWarning

with warnings.catch_warnings():
    warnings.simplefilter("ignore", TqdmWarning)
    from tqdm.auto import tqdm

__all__ = ["tqdm"]
