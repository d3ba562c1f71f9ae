"""The frame of the paper's tables and figures: what an experiment is, how it is run, judged and shown."""
