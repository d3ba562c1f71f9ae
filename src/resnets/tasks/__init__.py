"""One folder a task: what it trains, how it is evaluated, what it predicts."""
