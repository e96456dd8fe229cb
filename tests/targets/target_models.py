"""The sizes and types that the tests of targets share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edgecsd.exporting import ExportResult

SIZE, DIM, PHOTOS = 64, 32, 24
Pixels = NDArray[np.uint8]
Make = Callable[[str, str], ExportResult]
