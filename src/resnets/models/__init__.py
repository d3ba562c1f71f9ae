"""The paper's networks as torch modules."""
