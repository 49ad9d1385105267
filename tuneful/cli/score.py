"""`tuneful score`"""

from __future__ import annotations

from tuneful.cli.options import Force, In, Json, Out, Reward, refuse_existing


def command(reward: Reward, in_: In, out: Out, force: Force = False, as_json: Json = False) -> None:
    """Add `score` to each row of prompts and completions.

    Example: tuneful score --reward runs/demo/reward/model --in answers.jsonl --out scored.jsonl
    """
    import json

    refuse_existing(out, force)
    from tuneful.data.formats import read_pairs, write_jsonl
    from tuneful.rewards.load import load_reward
    from tuneful.rewards.reward import checked

    rows, prompts, completions = read_pairs(in_)
    scores = checked(load_reward(reward), prompts, completions).tolist()
    write_jsonl(out, ({**row, "score": score} for row, score in zip(rows, scores, strict=True)), force=force)
    mean = sum(scores) / len(scores)
    told = {"out": str(out), "rows": len(scores), "mean": mean}
    print(json.dumps(told) if as_json else f"{len(scores)} rows in {out}, mean score {mean:.3f}")
