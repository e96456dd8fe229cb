"""Whether a network survives half precision, as GPUs compute it: the largest numbers it makes, and where it fails."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgecsd.errors import GateFailedError

if TYPE_CHECKING:
    from torch import nn

    from edgecsd.quantisation.fp16_emulation import Emulation, OperatorRange

HALF_MAX = 65504.0  # the largest finite number of IEEE 754 binary16
WARN_ABOVE = HALF_MAX / 4  # other photos reach further than the few that are tried
LOWEST_COSINE = 0.999
FEW, BATCH = 16, 4  # tried where nothing hangs on it (Lite0: 0.27 s of CPU time an image), and at once: memory


@dataclass(frozen=True)
class RangeReport:
    """What half precision does to a network on some images.

    cosine_mean, cosine_min   of its embeddings in emulated half precision to those in float; NaN if there are none
    largest, reduction        the operator with the largest result, and with the largest sum of magnitudes
    failures, warnings        what is wrong, in words, each naming an operator and its value; empty for a safe network
    """

    images: int
    operators: int
    cosine_mean: float
    cosine_min: float
    largest: OperatorRange
    reduction: OperatorRange
    failures: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def safe(self) -> bool:
        return not self.failures

    def as_dict(self) -> dict[str, Any]:
        """The report as plain JSON: what is not finite is None."""
        return {key: _plain(value) for key, value in asdict(self).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return list(value) if isinstance(value, tuple) else value


def guard_ranges(module: nn.Module, pixels: NDArray[np.uint8], *, most: int = FEW) -> RangeReport | None:
    """Try up to `most` of the (n, S, S, 3) uint8 `pixels` on `module`: (B, S, S, 3) uint8 -> (B, dim), as is exported.

    None if the embeddings are zero or not finite in float already: that is no matter of half precision.
    """
    import torch

    from edgecsd.quantisation.fp16_emulation import emulate

    chosen = np.array(pixels[np.linspace(0, len(pixels) - 1, min(most, len(pixels))).round().astype(int)])
    emulation = emulate(module, [torch.from_numpy(chosen[i : i + BATCH]) for i in range(0, len(chosen), BATCH)])
    norms = emulation.floats.norm(dim=1)
    if not torch.isfinite(emulation.floats).all() or (norms == 0).any():
        return None
    cosines = _cosines(emulation)
    return RangeReport(
        images=len(chosen),
        operators=len(emulation.operators),
        cosine_mean=float(cosines.mean()),
        cosine_min=float(cosines.min()),
        largest=max(emulation.operators, key=lambda operator: operator.largest),
        reduction=max(emulation.operators, key=lambda operator: operator.reduction),
        failures=_failures(emulation, cosines),
        warnings=_warnings(emulation),
    )


def _cosines(emulation: Emulation) -> NDArray[np.float64]:
    """(n,); NaN for an embedding that is zero or not finite in half precision."""
    a, b = emulation.floats.double().numpy(), emulation.halves.double().numpy()
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines: NDArray[np.float64] = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return cosines


def _failures(emulation: Emulation, cosines: NDArray[np.float64]) -> tuple[str, ...]:
    found = []
    for operator in emulation.operators:
        if operator.largest > HALF_MAX:
            found.append(f"{operator.name} reaches {operator.largest:.6g}, above the {HALF_MAX:.0f} that fp16 holds")
        elif operator.reduction > HALF_MAX:
            found.append(f"{operator.name} sums magnitudes to {operator.reduction:.6g}, above fp16's {HALF_MAX:.0f}")
    broken = ~np.isfinite(cosines)
    if broken.any():
        what = f"{int(broken.sum())} of {len(cosines)} embeddings are zero or not finite in fp16"
        found.append(f"{what}; it begins at {_origin(emulation)}")
    elif cosines.min() < LOWEST_COSINE:
        found.append(f"the lowest cosine of fp16 to float is {cosines.min():.6f}, below {LOWEST_COSINE:g}")
    return tuple(found)


def _origin(emulation: Emulation) -> str:
    """The first operator that half precision breaks, with its value."""
    for operator in emulation.operators:
        if not math.isfinite(operator.half_largest):
            return f"{operator.name}, whose largest result is {operator.largest:.3g} in float and not finite in fp16"
        if operator.vanishes:
            return f"{operator.name}, whose largest result is {operator.largest:.3g} in float and 0 in fp16"
    return "no single operator: small values add up"


def _warnings(emulation: Emulation) -> tuple[str, ...]:
    near = [o for o in emulation.operators if WARN_ABOVE < max(o.largest, o.reduction) <= HALF_MAX]
    return tuple(
        f"{operator.name} comes near what fp16 holds: {max(operator.largest, operator.reduction):.6g} of {HALF_MAX:.0f}"
        for operator in near
    )


def require_half_precision(report: RangeReport, name: str, instead: Sequence[str]) -> None:
    """GateFailedError, naming operators and values, unless the network survives half precision.

    instead: the precisions of the file's target that compute in float
    """
    if report.safe:
        return
    more = f" (and {len(report.failures) - 3} more)" if len(report.failures) > 3 else ""
    named = " or ".join(filter(None, (", ".join(instead[:-1]), instead[-1])))
    raise GateFailedError(
        f"{name} computes in fp16 and must not ship: {'; '.join(report.failures[:3])}{more}. Nothing was written. "
        f"Use {named} on the CPU; or train with smaller weights in front of that operator, or scale what it divides"
    )
