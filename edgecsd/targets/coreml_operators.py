"""Every Core ML (MIL) operator that the evaluator knows, by name."""

from __future__ import annotations

from edgecsd.targets.coreml_arguments import Operator
from edgecsd.targets.coreml_elementwise import ELEMENTWISE
from edgecsd.targets.coreml_shapes import SHAPES
from edgecsd.targets.coreml_spatial import SPATIAL

OPERATORS: dict[str, Operator] = {**ELEMENTWISE, **SPATIAL, **SHAPES}
