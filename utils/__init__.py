"""Five wings and the page, and four modules that know nothing of fusion: `device`, `errors`, `files`, `progress`.

Imports go down between wings: training -> evaluation -> fusing -> stack -> pictures; page -> fusing.
"""

__version__ = "2.0.0"  # of the package, the commands, and the weights that they write
