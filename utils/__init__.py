"""Five wings, and three modules that know nothing of fusion: `device`, `errors`, `files`.

Imports go down between wings: training -> evaluation -> fusing -> stack -> pictures.
"""
