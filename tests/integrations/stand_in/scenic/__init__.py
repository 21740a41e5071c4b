"""A trainer with the interfaces and the demands of google-research's Scenic.

Written anew and far smaller; what Scenic does to a data set, a model or an optimizer
is done here, too, in the same order. `test_real_scenic.py` runs the real one.
"""
