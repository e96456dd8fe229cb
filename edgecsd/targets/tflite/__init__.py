"""TFLite (LiteRT): convert, quantise, describe, run."""
