"""What tracing a model gave, kept while the process lives: all precisions of a model, and all trials of a search."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

from edgecsd.files.whole import digest_of
from edgecsd.models.weights import weights_digest
from edgecsd.targets.deploy import DeployModel

MOST, MOST_BYTES = 2, 256 << 20  # models kept for each converter, and their float files together
_OURS = ("torch", "timm", "edgecsd")


def traced_once(trace: Callable[[DeployModel], bytes]) -> Callable[[DeployModel], bytes]:
    """`trace`, whose results are kept for the last models that it was given: tracing is most of a conversion's time.

    Models are the same if their weights, their modules and what query_model.json says of them are. A model with a
    module of somebody else's class, or with a method of its own, is traced every time: its weights are not all of it.
    """
    kept: dict[str, bytes] = {}

    @wraps(trace)
    def traced(model: DeployModel) -> bytes:
        key = _identity(model)
        if key is None:
            return trace(model)
        result = kept.pop(key, None) or trace(model)
        kept[key] = result  # the last that was asked for stands last
        while len(kept) > MOST or sum(map(len, kept.values())) > MOST_BYTES:
            del kept[next(iter(kept))]
        return result

    return traced


def _identity(model: DeployModel) -> str | None:
    for module in model.modules():
        if type(module).__module__.partition(".")[0] not in _OURS or "forward" in vars(module):
            return None
    config = model.query_model.config.model_dump(mode="json")
    return digest_of([type(model).__qualname__, str(model), config, weights_digest(model.state_dict())])
