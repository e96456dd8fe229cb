"""Gallery models by their identifier: timm:NAME, open_clip:NAME, transformers:NAME, onnx:FILE or module:function."""
