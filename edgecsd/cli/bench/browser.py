"""edgecsd bench --device browser and --device adb-browser[:SERIAL]: the phone page's rows, printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgecsd.cli.bench.imported import finish_rows
from edgecsd.cli.console import ConsoleReporter
from edgecsd.errors import BadInputError


def is_browser(device: str | None) -> bool:
    """Whether --device names a browser."""
    return device is not None and device.partition(":")[0] in ("browser", "adb-browser")


def measure_in_browser(
    device: str,
    files: Sequence[Path],
    given: Mapping[str, Any],
    refused: Mapping[str, Any],
    out: Path | None,
    as_json: bool,
) -> None:
    """given: arguments of bench_in_browser; refused: options that a browser cannot honour, by their names."""
    from edgecsd.serve.bench_in_browser import BROWSER, bench_in_browser, bench_in_phone_browser

    if wrong := [name for name, value in refused.items() if value]:
        raise BadInputError(f"{wrong[0]} cannot be honoured with --device {device}: leave it out")
    reporter = ConsoleReporter()
    if device == BROWSER:
        rows = bench_in_browser(files, **given, out=out, reporter=reporter)
    elif device.startswith(f"{BROWSER}:"):
        raise BadInputError(f"--device {device}: a browser here has no serial number; give --device browser")
    else:
        chosen = {name: given[name] for name in ("images", "timeout_seconds", "index", "k")}
        for name in ("threads", "min_runs", "min_seconds"):
            if name in given and given[name] not in (None, ()):
                raise BadInputError(f"--{name.replace('_', '-')}: it is chosen on the phone's page; leave it out")
        rows = bench_in_phone_browser(files, device, **chosen, out=out, reporter=reporter)
    finish_rows(rows, out, as_json)
