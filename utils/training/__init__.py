"""Training: `dataset` and `augment` make samples, `loss` judges, `train` steps, `validate` measures, `parallel` shares.

Imports: all other wings, and models.
"""
