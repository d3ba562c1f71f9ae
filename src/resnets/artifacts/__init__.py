"""What training leaves behind: the run directory and the model folder."""
