"""Pictures and their files: the only wing that reads and writes photographs.

`image` reads and writes, by `decoders`, and by `hdr` what is brighter than white; `metadata` is what a file says of its
picture, `light` what its numbers mean; `scenes` sorts files into scenes, by the rules of `brackets`; `pixels` is the
arithmetic of values and colours. Imports: nothing of the other wings, no PyTorch.
"""

QUALITY = 92  # of lossy formats: no eye sees the loss, and a JPEG has three quarters of the size at 95
