"""Trained actors as files that run without this package: ONNX, and ``torch.export``."""
