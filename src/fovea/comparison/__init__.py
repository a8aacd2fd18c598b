"""Which of several runs is better, and what may be claimed of it."""
