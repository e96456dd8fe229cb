"""Named pixel mistakes: what apps and scripts do wrong between a photo and the network, and which one explains vectors.

Each is a function of a photo and the right pixel contract, so that its cost can be measured and its traces recognised:
`diagnose_pixels` embeds photos with every mistake and names the one whose vectors are those that were found.
"""

from edgecsd.photos.pixel_mistakes.diagnosis import Embed, Explanation, diagnose_pixels, explain_pixels, renormalising
from edgecsd.photos.pixel_mistakes.mistakes import MISTAKES, PixelMistake, Shot, right_pixels

__all__ = [
    "MISTAKES",
    "Embed",
    "Explanation",
    "PixelMistake",
    "Shot",
    "diagnose_pixels",
    "explain_pixels",
    "renormalising",
    "right_pixels",
]
