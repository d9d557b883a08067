"""Readings under fire: what a subscriber with a persistent session counts, held against what the cycler handed out."""
