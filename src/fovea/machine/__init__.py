"""The machine a run has: devices, memory, ranks, signals, and where it may write.

Empty, since part of this package is used where torch is not imported yet.
"""
