"""What this machine's processor can do that decides how a runtime should be set."""

from __future__ import annotations

from functools import cache
from pathlib import Path

EXACT_FLAGS = frozenset({"avx512_vnni", "avx_vnni"})  # 8-bit dot products that don't saturate
CPUINFO = Path("/proc/cpuinfo")


@cache
def multiplies_bytes_exactly(cpuinfo: Path = CPUINFO) -> bool:
    """Whether every core multiplies unsigned by signed bytes without saturation (VNNI); False where nobody tells."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return False
    flags = [set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")]
    return bool(flags) and all(EXACT_FLAGS & core for core in flags)
