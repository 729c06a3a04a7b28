"""Measuring: `metric` defines every score, `scoring` fuses and scores scenes, `report` prints tables.

Imports: fusing, stack, pictures.
"""
