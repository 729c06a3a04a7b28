"""Five wings, and three modules that know nothing of fusion: `device`, `errors`, `files`.

Imports go down between wings: evaluation, training -> fusing -> stack -> pictures.
"""
