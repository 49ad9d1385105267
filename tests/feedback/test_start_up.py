from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_feedback_starts_without_torch() -> None:
    modules = sorted(path.stem for path in (ROOT / "tuneful/feedback").glob("*.py") if path.stem != "__init__")
    assert "consensus" in modules
    imports = "\n".join(f"import tuneful.feedback.{name}" for name in modules)
    code = f"{imports}\nimport sys\nassert not {{'torch', 'transformers'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
