"""Shared by all tests: they leave room for each other, reach no network and ask nobody."""

import os

os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("WANDB_SILENT", "true")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HYDRA_FULL_ERROR"] = "1"
