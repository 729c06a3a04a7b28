"""A stack of shots in, a better stack out: `align`, `ghost`, `exposure`, `radiance`.

Imports: `pixels` of the pictures, no PyTorch.
"""

METHODS = ("mtb", "homography")  # of `align`
