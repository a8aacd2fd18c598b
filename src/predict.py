"""Classify image files with a trained network: python src/predict.py --help."""

from fovea.cli import predict

if __name__ == "__main__":
    predict()
