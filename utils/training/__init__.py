"""Training: `dataset` and `augment` make samples, `loss` judges, `train` steps, `validate` measures, `parallel` shares.

Imports: all other wings but the page, and models.
"""

SCALE_WEIGHTS = (0.2, 1.2, 1.3, 0.3, 0.2, 0.2)  # of the loss; here since the scripts' --help must not import PyTorch
LUM_WEIGHT = 0.3
CLIP_WEIGHT = 1.0
SHOTS = (2, 2, 2, 2, 2, 2, 3, 4, 6)  # shots to fuse, each number as likely as the others
