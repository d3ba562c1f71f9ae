"""How good predictions are: plain functions of tensors, and accumulators whose states add up over processes."""
