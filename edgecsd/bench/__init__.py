"""Latency, memory and parity of artifacts on this machine and on others; importing it loads no model library."""

from edgecsd.bench.child import MeasurementFailedError
from edgecsd.bench.devices import Device
from edgecsd.bench.opening import DeviceOptions, open_device
from edgecsd.bench.ratio import Ratio, interleaved_ratio
from edgecsd.bench.rows_file import read_rows
from edgecsd.bench.run import bench
from edgecsd.bench.schema import BenchProtocol, BenchResult, BenchRow, Figures, Parity, Repeat, Status

__all__ = [
    "BenchProtocol", "BenchResult", "BenchRow", "Device", "DeviceOptions", "Figures", "MeasurementFailedError",
    "Parity", "Ratio", "Repeat", "Status", "bench", "interleaved_ratio", "open_device", "read_rows",
]  # fmt: skip
