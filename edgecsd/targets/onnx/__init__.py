"""ONNX: convert, quantise, describe, run."""
