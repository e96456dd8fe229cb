"""Gallery models by their identifier: timm:NAME, onnx:FILE or module:function."""
