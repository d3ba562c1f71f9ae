"""Pictures of runs: error curves as a file and as text."""
