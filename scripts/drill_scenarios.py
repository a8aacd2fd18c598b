"""What the kill drill trains: small, and each with another part of a run's state at stake."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from PIL import Image
from sklearn.datasets import load_digits

COMMON = (
    "model=timm", "model.name=test_resnet", "model.head.dropout=0.2", "augment=mixup_cutmix",
    "data.batch_size=16", "trainer=cpu", "trainer.max_epochs=4", "trainer.log_every_n_steps=1",
    "logger=none", "checkpoint.every_n_steps=3",
)  # fmt: skip
DIGITS = ("data=digits", "data.limit_per_class=13")
SCENARIOS: dict[str, tuple[str, ...]] = {
    "memory": DIGITS,
    "transfer": (
        *DIGITS, "freeze=gradual", "callbacks=[default,ema]", "trainer.accumulate_grad_batches=2",
    ),
    "stopping": (
        *DIGITS, "callbacks=[default,early_stopping]", "callbacks.early_stopping.patience=1",
        "optimizer=sgd", "+trainer.val_check_interval=4", "data.num_workers=2",
        "data.in_memory=false",
    ),
    "folder": ("data=folder", "data.root={images}", "data.in_memory=false", "data.num_workers=3"),
    "shards": ("data=shards", "data.root={shards}", "data.in_memory=false", "data.num_workers=2"),
    "ranks": (*DIGITS, "callbacks=[default,ema]", "trainer=ddp_cpu", "trainer.devices=2"),
}  # fmt: skip


def make_images(folder: Path) -> None:
    """Write 160 PNG images in 10 class folders into ``images``, and the same into ``shards``."""
    digits, images = load_digits(), folder / "images"
    pixels = (digits.images * 15.9).astype("uint8")
    for number, label in enumerate(digits.target[:160]):
        path = images / str(label) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[number]).resize((16, 16)).save(path)
    script = Path(__file__).with_name("prepare_shards.py")
    words = ["data=folder", f"data.root={images}", f"out={folder / 'shards'}", "shard_mb=0.01"]
    done = subprocess.run(
        [sys.executable, str(script), *words, "num_workers=0"], capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
