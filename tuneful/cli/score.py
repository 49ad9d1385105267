"""`tuneful score`"""

from __future__ import annotations

from tuneful.cli.options import Force, In, Json, Out, Reward, refuse_existing


def command(reward: Reward, in_: In, out: Out, force: Force = False, as_json: Json = False) -> None:
    """The score of every answer in a completions or demonstrations file, one row per answer.

    Example: tuneful score --reward runs/demo/reward/model --in answers.jsonl --out scored.jsonl
    """
    import json

    refuse_existing(out, force)
    from tuneful.data.formats import read_answers, write_jsonl
    from tuneful.rewards.load import load_reward
    from tuneful.rewards.reward import checked

    answers = read_answers(in_)
    scores = checked(load_reward(reward), [p for p, _ in answers], [c for _, c in answers]).tolist()
    rows = (
        {"prompt": prompt.as_json(), "completion": completion.text, "score": score}
        for (prompt, completion), score in zip(answers, scores, strict=True)
    )
    write_jsonl(out, rows, force=force)
    mean = sum(scores) / len(scores)
    told = {"out": str(out), "rows": len(scores), "mean": mean}
    print(json.dumps(told) if as_json else f"{len(scores)} rows in {out}, mean score {mean:.3f}")
