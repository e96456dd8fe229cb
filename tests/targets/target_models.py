"""The sizes and types that the tests of targets share."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from edgecsd.exporting.export import ExportResult

SIZE, DIM, PHOTOS = 64, 32, 24
Pixels = NDArray[np.uint8]
# Core AI is experimental and has packages for few systems; where CI=true they are installed, and a lack is a failure.
NO_COREAI = importlib.util.find_spec("coreai_torch") is None and os.environ.get("CI") != "true"
needs_coreai = pytest.mark.skipif(NO_COREAI, reason="no coreai-torch: pip install 'edgecsd[coreai]'")
Make = Callable[[str, str], ExportResult]
