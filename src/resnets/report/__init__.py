"""Pictures of runs and of comparisons, as files and as text, and the web page about a run."""
