"""Checkpoints: when they are made, and how they reach the disk whole.

Empty, since part of this package is used where torch is not imported yet.
"""
