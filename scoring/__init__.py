"""Scores of masks that any model has saved as PNG, under named rules; `score.py` is the command.

folders.py      which file holds the mask of which clip and second
decode.py       what a PNG says: a binary mask, probabilities, a palette or class indices
problems.py     masks that are missing or cannot be scored, one line for each kind
binary.py       S4 and MS3: M_J, M_F and their variants, and the measures of sound conditions
semantic.py     AVSS: a class for each pixel, under the rules of utils.semantic
tables.py       the table of several models, and the CSV files

Nothing here imports torch, so that the command starts in under a second.
"""
