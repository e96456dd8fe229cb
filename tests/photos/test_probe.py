"""The built-in test photos."""

from __future__ import annotations

import hashlib

from edgecsd.photos.probe import probe_photos


def test_the_test_photos_never_change() -> None:
    """Stores hold what they gave: other photos would make every gallery model look like another one."""
    assert [hashlib.sha256(photo.tobytes()).hexdigest()[:16] for photo in probe_photos()] == [
        "7076f455c424bfad",
        "111c10c955303f1d",
    ]
    assert {(photo.mode, photo.size) for photo in probe_photos()} == {("RGB", (320, 240))}
