"""What /proc/cpuinfo says of 8-bit products, and what onnxruntime is set to for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecsd.quantisation.precisions import Precision
from edgecsd.targets import artifact
from edgecsd.targets.artifact import multiplies_bytes_exactly, session_options
from edgecsd.targets.metadata import ArtifactMetadata, Target

ONE_CORE = "processor\t: 0\nmodel name\t: made up\nflags\t\t: fpu sse4_1 avx2 {0}\n\n"


@pytest.mark.parametrize(
    ("cores", "exact"),
    [
        (["avx512f avx512_vnni"], True),
        (["avx_vnni", "avx512_vnni"], True),
        (["avx_vnni", "avx2"], False),
        (["avx2"], False),
    ],
)
def test_every_core_must_have_it(cores: list[str], exact: bool, tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text("".join(ONE_CORE.format(flags) for flags in cores))
    assert multiplies_bytes_exactly(file) is exact


def test_where_nothing_is_told(tmp_path: Path) -> None:
    assert not multiplies_bytes_exactly(tmp_path / "absent")
    (tmp_path / "arm").write_text("processor\t: 0\nFeatures\t: fp asimd asimddp\n")
    assert not multiplies_bytes_exactly(tmp_path / "arm")


@pytest.mark.parametrize("exact", [True, False])
def test_the_slower_kernels_only_where_the_others_saturate(exact: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact, "multiplies_bytes_exactly", lambda: exact)
    metadata = ArtifactMetadata.model_construct(target=Target.ONNX, precision=Precision.W8A8)
    slower = {"session.x64quantprecision": "1"}
    assert session_options(metadata) == ({} if exact else slower)
    assert session_options(metadata, here=False) == slower
