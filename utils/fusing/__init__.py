"""A scene's way from its exposures to the fused picture.

`fusion` leads through it, from files to a file, and `network` from shots to a picture: `onnx` and `tiles` run the
network, `colour` and `blend` make the picture of what it decides. `hdr` makes the map from there to the scene's light,
`adjust` what a person changes. Imports: pictures, stack; PyTorch in `tiles` alone.
"""
