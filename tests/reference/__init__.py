"""The mathematics of klopf in plain float64 NumPy: one run at a time, readable like pseudo-code, never fast.

Shapes and conventions are PyTorch's (images [B, C, H, W], a linear weight [O, I]). The engine is tested
against this package, and this package against recorded trajectories of the published implementations and
against central differences.
"""
