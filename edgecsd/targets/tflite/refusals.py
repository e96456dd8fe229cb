"""What litert-torch cannot convert, in words: known networks before the conversion, and what it says when it fails."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from edgecsd.errors import BadInputError
from edgecsd.targets.deploy import DeployModel

INSTEAD = "take `target` onnx or coreml, or another backbone"
# Classes whose attention multiplies the queries of a batch's photos by the keys of the others: a product of vectors
ACROSS_THE_BATCH = frozenset({"timm.models.csatv2.SpatialTransformerBlock"})
_SAID = re.compile(
    r"(?P<file>[^\s/]+/[^\s/]+\.py):(?P<line>\d+):\d+: error: (?:'(?P<operator>[\w.]+)' op )?(?P<why>.+)"
)


def require_convertible(model: DeployModel) -> None:
    """BadInputError, naming the module, for a network that litert-torch is known not to convert."""
    for name, module in model.named_modules():
        if f"{type(module).__module__}.{type(module).__qualname__}" in ACROSS_THE_BATCH:
            raise BadInputError(
                f"{model.query_model.config.backbone} cannot become a TFLite file: {name.removeprefix('query_model.')} "
                f"({type(module).__qualname__}) attends over the photos of a batch, and its matrix product has no form "
                f"in TFLite; {INSTEAD}"
            )


@contextmanager
def in_words(model: DeployModel) -> Iterator[None]:
    """A converter's error about one operator as a BadInputError that names it; others pass unchanged."""
    try:
        yield
    except Exception as error:
        said = _SAID.search(str(error))
        if said is None:
            raise
        made = f"{said['operator']}, which it makes of " if said["operator"] else ""
        place = f"{made}line {said['line']} of {said['file']}"
        backbone = model.query_model.config.backbone
        raise BadInputError(
            f"{backbone} cannot become a TFLite file: litert-torch fails on {place}: {said['why'].strip()}; {INSTEAD}"
        ) from error
