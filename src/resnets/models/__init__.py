"""The paper's networks as PyTorch modules; `models/build.py` makes one from a spec."""
