"""Run an exported detector with ONNX Runtime, NumPy and Pillow alone, without PyTorch and this package.

python experiments/examples/run_onnx.py exported/model.onnx face.jpg other.jpg
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

if len(sys.argv) < 3:
    sys.exit(__doc__)
model, *paths = sys.argv[1:]
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
about = session.get_modelmeta().custom_metadata_map
size = json.loads(about["image_size"])
filter_ = Image.Resampling[json.loads(about["backbone"])["interpolation"].upper()]
threshold = json.loads(about["probability_threshold"])  # None where validation fixed none

images = []
for path in paths:
    image = ImageOps.exif_transpose(Image.open(path, formats=["JPEG", "PNG", "WEBP", "BMP"])).convert("RGB")
    images.append(np.asarray(image.resize((size, size), filter_)))

logits, probabilities, cams, entropies = session.run(None, {"image": np.stack(images)})
for path, probability, entropy in zip(paths, probabilities, entropies, strict=True):
    decision = "no threshold" if threshold is None else "synthetic" if probability >= threshold else "real"
    print(f"{path}\t{probability:.6f}\t{decision}\tCAM entropy {entropy:.4f} nats")
