"""Measuring: `metric` defines every score, `scoring` fuses and scores scenes, `report` prints tables.

Imports: fusing, stack, pictures.
"""

MIN_SIDE = 44  # pixels: MEF-SSIM is not defined for smaller pictures, whose coarsest scale has fewer than 11
