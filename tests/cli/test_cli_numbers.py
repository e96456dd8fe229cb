"""Options that hold sizes, shares and ratios."""

from __future__ import annotations

import pytest

from edgecsd.cli.numbers import ratio_from_text, share_from_text, size_from_text
from edgecsd.errors import BadInputError


def test_sizes_and_shares_of_a_file() -> None:
    known = {
        "6MB": (6_000_000, None),
        "900 kB": (900_000, None),
        "1.5MiB": (1_572_864, None),
        "2KiB": (2048, None),
        "512B": (512, None),
        "30%": (None, 0.3),
    }
    assert {text: size_from_text(text, "--max-size") for text in known} == known
    for wrong in ("6", "0.3", "MB", "-6MB", "0MB", "6 Mb s", "6GB", "nan%", ""):
        with pytest.raises(BadInputError, match=r"--max-size .*: a size such as 6MB"):
            size_from_text(wrong, "--max-size")


def test_ratios_and_shares() -> None:
    assert ratio_from_text("0.6", "-") == ratio_from_text("60%", "-") == 0.6 and ratio_from_text("150%", "-") == 1.5
    assert share_from_text("1%", "-") == share_from_text("0.01", "-") == 0.01
    for wrong in ("0", "-1", "fast", "nan", "inf"):
        with pytest.raises(BadInputError, match=r"--max-cpu-ratio .*a ratio above 0"):
            ratio_from_text(wrong, "--max-cpu-ratio")
    with pytest.raises(BadInputError, match=r"--max-loss 1\.5: a share from 0 to 1"):
        share_from_text("1.5", "--max-loss")
