"""Pictures, animations, plots and the HTML report."""

import contextlib
import os

# Notebooks export a backend that may not be installed here, and Matplotlib
# cannot be imported then. What is drawn here needs no screen.
_BACKEND = os.environ.pop("MPLBACKEND", None)
try:
  import matplotlib
finally:
  if _BACKEND is not None:
    os.environ["MPLBACKEND"] = _BACKEND
if _BACKEND:
  with contextlib.suppress(ValueError):
    matplotlib.rcParams["backend"] = _BACKEND  # for the user's own plots
