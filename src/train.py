"""Train a network: python src/train.py --help."""

from fovea.cli import train

if __name__ == "__main__":
    train()
