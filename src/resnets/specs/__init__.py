"""Runs, models and data as frozen dataclasses; standard library only."""
