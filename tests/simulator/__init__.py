"""Tests of the simulated cycler."""
