"""A stack of shots in, a better one out: `align`, `ghost`, `noise`; light: `response` merges shots, `radiance` maps.

Imports: `pixels` of the pictures, no PyTorch.
"""

METHODS = ("mtb", "homography")  # of `align`
