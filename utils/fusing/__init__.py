"""A scene's way from its exposures to the fused picture.

`fusion` leads through it; `onnx` and `tiles` run the network, `colour` and `blend` make the picture of what it decides,
`hdr` the map from there to the scene's light. Imports: pictures, stack; PyTorch in `tiles` alone.
"""
