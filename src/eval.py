"""Evaluate a checkpoint or pre-trained weights: python src/eval.py --help."""

from fovea.cli import evaluate

if __name__ == "__main__":
    evaluate()
