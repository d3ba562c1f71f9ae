"""The paper's tables and figures, one file each: its numbers as data, the runs behind them, the verdict."""
