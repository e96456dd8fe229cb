"""Two built-in test photos: whoever embeds them again sees whether a gallery model still gives the same vectors."""

from __future__ import annotations

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 320, 240


def probe_photos() -> tuple[Image.Image, Image.Image]:
    """Upright RGB, 320 x 240, the same everywhere: made of whole numbers only. Edges, gradients and fine texture."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(np.int64)
    disc = (rows - 120) ** 2 + (columns - 200) ** 2 < 80**2
    smooth = np.stack([columns * 255 // WIDTH, rows * 255 // HEIGHT, np.where(disc, 220, 60)], axis=2)
    texture = (rows * rows * 7 + columns * 13 + (rows * columns) % 251) % 256
    stripes = np.where((rows // 9 + columns // 17) % 2, 200, 40)
    fine = np.stack([texture, stripes, (texture + 2 * stripes) // 3], axis=2)
    first, second = (Image.fromarray(pixels.astype(np.uint8)) for pixels in (smooth, fine))
    return first, second
