from __future__ import annotations

import pytest
from dialogsum import rouge_l


def test_rouge_l_by_hand() -> None:
    """Stems "the cat sit on the mat" beside "the dog sit": the longest common subsequence has 2 words, so precision 2/3
    and recall 2/6, F1 4/9. Beside two human summaries that say the same F1 is 1, and the mean of three 22/27; of
    two texts of which one says nothing of it half of that."""
    pytest.importorskip("rouge_score", reason="pip install 'tuneful[rouge]'")
    one = {"summary": "The cat sits on the mat."}
    three = {"summary1": "The cat sits on the mat.", "summary2": "the dog sits", "summary3": "The dog sits!"}
    found = rouge_l([["the dog sits"], ["the dog sits", "rain"]], [one, three])
    assert found.tolist() == pytest.approx([100 * 4 / 9, 100 * 11 / 27])
