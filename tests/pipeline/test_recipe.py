"""Recipes: every shipped one loads, and a mistake is named before anything heavy starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuneful.errors import ConfigError
from tuneful.pipeline.recipe import load_recipe, shipped_recipe

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))

PPO = """
[[stage]]
name = "tune"
algorithm = "ppo"
model = "somewhere"
prompts = "prompts.jsonl"
reward = "shorter"
"""

EVALUATE = """
[[stage]]
name = "compare"
do = "evaluate"
before = "somewhere"
after = "elsewhere"
prompts = "prompts.jsonl"
measures = ["demo:true_utility"]
"""

BEST_OF_N = """
[[stage]]
name = "best"
do = "best_of_n"
model = "somewhere"
prompts = "prompts.jsonl"
reward = "shorter"
measures = ["demo:true_utility"]
"""

LABEL = """
[[stage]]
name = "label"
do = "label"
completions = "completions.jsonl"
raters = "demo:labelers"
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_every_shipped_recipe_loads(path: Path):
    recipe = load_recipe(path, seed=3)
    assert recipe.stages
    configs = [stage.config for stage in recipe.stages if stage.config is not None and stage.round == 1]
    assert {recipe.seed, *(config.seed for config in configs)} == {3}
    assert shipped_recipe(path.stem).read_bytes() == path.read_bytes()


def test_the_leash_is_all_that_sets_the_two_demos_apart():
    leashed, free = (load_recipe(shipped_recipe(name)) for name in ("demo", "demo_no_leash"))
    assert [s.as_table() for s in leashed.stages[:4]] == [s.as_table() for s in free.stages[:4]]
    by_name = {s.name: s for s in free.stages}
    assert by_name["ppo"].config.kl_coef == 0
    assert by_name["ppo"].inputs.alarm.action == "log"


def test_inputs_and_settings_stand_in_one_table(tmp_path):
    recipe = load_recipe(written(tmp_path, PPO + "clip = 0.1\nlora = { rank = 4 }\n"), ["tune.kl_coef=0.3", "seed=9"])
    (stage,) = recipe.stages
    assert (stage.config.clip, stage.config.kl_coef, stage.config.seed) == (0.1, 0.3, 9)
    assert (stage.inputs.lora.rank, stage.inputs.reward) == (4, "shorter")


def test_an_override_reaches_into_a_nested_table(tmp_path):
    recipe = load_recipe(written(tmp_path, PPO), ["tune.optimization.learning_rate=0.5"])
    assert recipe.stages[0].config.optimization.learning_rate == 0.5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (PPO + "clip_range = 0.1\n", 'stage tune: unknown setting "clip_range"'),
        (
            PPO + "top_p = 0.9\n",
            'stage tune: "top_p" is no setting of ppo: the sampler would draw from another distribution than',
        ),
        (PPO + "top_k = 20\n", 'stage tune: "top_k" is no setting of ppo: the sampler would draw from another'),
        (PPO + "kl_coeff = 0.1\n", 'unknown setting "kl_coeff"; did you mean "kl_coef"?'),
        (
            PPO + "optimization = { learning_rat = 1 }\n",
            'unknown setting "learning_rat"; did you mean "learning_rate"?',
        ),
        (PPO.replace('"ppo"', '"pppo"'), 'algorithm = "pppo" is unknown; did you mean "ppo"?'),
        (PPO.replace('"somewhere"', '"@sft"'), 'model = "@sft" names no earlier stage'),
        (PPO + PPO, 'two stages are called "tune"'),
        (PPO.replace('name = "tune"', 'name = "my stage"'), "every stage needs a name"),
        ("seed = -1\n" + PPO, "recipe.toml: seed must lie between 0 and 2^63 - 1, got -1"),
        (PPO + "seed = -1\n", "stage tune: ppo.seed must lie between 0 and 2^63 - 1, got -1"),
        ('rounds = "2"\n' + PPO, "recipe.toml: \"rounds\" = '2': write a number, without quotation marks"),
        ('splits = { reward = "0.4", rl = 0.6 }\n' + PPO, "\"splits.reward\" = '0.4': write a number, without"),
        (PPO + "clip = 2.0\n", "stage tune: ppo.clip must lie between 0 and 1, got 2.0"),
        (PPO + "kl_budget = -3\n", "stage tune: kl_budget must be above 0, got -3"),
        (PPO + "save_every = -2\n", "stage tune: save_every must be at least 0, got -2"),
        (PPO + "tokens_per_microbatch = 0\n", "stage tune: tokens_per_microbatch must be at least 1, got 0"),
        (
            PPO + "threshold = { rewrad = 2.0 }\n",
            'no measure on dev prompts is called "rewrad"; did you mean "reward"?',
        ),
        (PPO + "threshold = { second_reward = 1.0 }\n", 'no measure on dev prompts is called "second_reward"'),
        (EVALUATE + "temperature = -1\n", "stage compare: temperature must be at least 0, got -1"),
        (EVALUATE + "max_prompt_tokens = 0\n", "stage compare: max_prompt_tokens must be at least 1, got 0"),
        (
            EVALUATE + 'judge = "demo:true_utilty"\n',
            'measures nothing called "true_utilty"; did you mean "true_utility"?',
        ),
        (EVALUATE + 'judge = "reward"\n', 'measures nothing called "reward"'),
        (
            PPO.replace('"shorter"', '{ classifier = "x", lable = 1 }'),
            'stage tune: reward: unknown setting "lable"; did you mean "label"?',
        ),
        (
            PPO.replace(
                '"shorter"', '[{ reward = "shorter" }, { reward = { rule = "words", words = ["a"] }, clipp = 1 }]'
            ),
            'stage tune: reward: part 2: unknown setting "clipp"; did you mean "clip"?',
        ),
        (
            PPO.replace('"shorter"', '[{ reward = "@rewrad" }]'),
            'stage tune: reward = "@rewrad" names no earlier stage',
        ),
        (
            PPO.replace('"shorter"', '{ ensemble = ["longer", "@b"] }'),
            'stage tune: reward = "@b" names no earlier stage',
        ),
        (
            PPO.replace('"shorter"', '[{ reward = "shorter" }]') + "threshold = { reward_longer = 1 }\n",
            'no measure on dev prompts is called "reward_longer"; did you mean "reward_shorter"?',
        ),
        (
            PPO.replace('"shorter"', '{ ensemble = ["longer", "shorter"] }')
            + "share_base = true\nlora = { rank = 2 }\n",
            "share_base needs a reward model alone",
        ),
        (
            PPO.replace('"shorter"', '"@b"') + "share_base = true\nshard = true\nlora = { rank = 2 }\n",
            "share_base: each process scores other answers, so layers cannot be split; leave shard out",
        ),
        (PPO + 'base_dtype = "nf4"\nshard = true\nlora = { rank = 2 }\n', "shard: weights in nf4 cannot be split"),
        (
            EVALUATE + 'reward = { classifier = "x" }\ntoxicity = { classifier = "x" }\n',
            "stage compare: toxicity is measured by the reward itself",
        ),
        (
            EVALUATE.replace("true_utility", "toxicity") + 'toxicity = { rule = "words", words = ["a"] }\n',
            "stage compare: two measures are called toxicity; leave out the setting or the one of the world",
        ),
        (
            EVALUATE.replace("true_utility", "length"),
            "stage compare: two measures are called length; leave one out of `measures`",
        ),
        (
            EVALUATE.replace('["', '["other:true_utility", "'),
            "stage compare: two measures are called true_utility; leave one out of `measures`",
        ),
        (BEST_OF_N + 'toxicity = "shorter"\n', "stage best: toxicity is measured by the reward itself"),
        (
            BEST_OF_N.replace("true_utility", "toxicity") + 'toxicity = { rule = "words", words = ["a"] }\n',
            "stage best: two measures are called toxicity; leave out the setting or the one of the world",
        ),
        (
            BEST_OF_N.replace("true_utility", "reward"),
            "stage best: two measures are called reward; leave out the setting or the one of the world",
        ),
        (EVALUATE + 'toxicity = "@compare"\n', 'toxicity = "@compare" names no earlier stage'),
        (LABEL + "raters_per_item = 0\n", "stage label: raters_per_item must be at least 1, got 0"),
        ("[splits]\nreword = 0.9\n" + PPO, 'no split is called "reword"; did you mean "reward"?'),
        ("[splits]\nreward = 0.9\n" + PPO, "shares must not be negative and add up to 1, got {'reward': 0.9}"),
        (PPO.replace('"tune"', '"seed"'), 'no stage can be called "seed", which is a setting of the whole run'),
        ("stage = [1]\n", "a recipe needs at least one"),
        ("[[stages]]\n", 'unknown setting "stages"; did you mean "stage"?'),
        ("seed = 1\n", "a recipe needs at least one"),
        ('[[stage]]\nname = "x"\n', 'say either algorithm = "…" or do = "…"'),
    ],
)
def test_a_mistake_is_named(tmp_path, text, said):
    with pytest.raises(ConfigError) as error:
        load_recipe(written(tmp_path, text))
    assert said in str(error.value)
    assert str(error.value).startswith(f"{tmp_path / 'recipe.toml'}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        PPO + 'second_reward = "longer"\nthreshold = { second_reward_low = 1.0, phrase_z = 4 }\nkl_budget = 3\n',
        EVALUATE + 'reward = "shorter"\njudge = "reward"\ntemperature = 0\n',
        EVALUATE + 'judge = "true_utility"\n',
        EVALUATE + 'judge = "length"\n',
        BEST_OF_N.replace("true_utility", "toxicity"),
        EVALUATE + 'toxicity = { rule = "words", words = ["a"] }\njudge = "toxicity"\n',
        PPO.replace('"shorter"', '[{ reward = "shorter", name = "brief" }]') + "threshold = { reward_brief = 1 }\n",
    ],
)
def test_what_a_stage_measures_can_be_named(tmp_path, text):
    assert load_recipe(written(tmp_path, text)).stages


def test_an_override_of_an_unknown_stage_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r'no stage "tun"; did you mean "tune"'):
        load_recipe(written(tmp_path, PPO), ["tun.clip=0.1"])
    with pytest.raises(ConfigError, match=r'--set tune=3: "tune" is a stage; say which'):
        load_recipe(written(tmp_path, PPO), ["tune=3"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("ppo.base_dtype=bfloat16", 'base_dtype = "bfloat16" needs lora'),
        ("ppo.share_base=true", "share_base needs lora"),
        ("ppo.value=adapter", 'value = "adapter" needs adapters'),
        ("ppo.value_from=@reward", "value_from needs value"),
        ("ppo.alarm.kl_budget=-3", "hacking_alarm.kl_budget must be above 0, got -3"),
    ],
)
def test_roles_and_alarms_that_cannot_be_are_refused_before_anything_runs(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        load_recipe(shipped_recipe("demo"), [override])
    assert "stage ppo" in str(error.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "ppo.reward=@consensus",
            'reward = "@consensus": that stage makes comparisons, and reward needs a reward model',
        ),
        ("ppo.model=@reward", 'model = "@reward": that stage makes a reward model, and model needs a model'),
        ("reward.comparisons=@samples", "that stage makes completions, and comparisons needs comparisons"),
        ("ppo.prompts=@samples", "and prompts names a file, data set or world, no stage"),
    ],
)
def test_a_stage_of_the_wrong_kind_is_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_recipe(shipped_recipe("demo"), [override])
    assert message in str(error.value)
