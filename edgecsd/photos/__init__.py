"""Photos on their way to the network: found, listed, decoded, cropped, resized by the pixel contract."""
