import pytest

from tuneful.demo.world import BASE_CONFIG, words, world, world_hash


def test_core_odds_add_up_to_one():
    odds = world().odds
    assert odds.right + odds.wrong + odds.contradiction + odds.evasion + odds.insult == pytest.approx(1)


def test_the_base_model_has_about_700_000_weights():
    d, f, layers = BASE_CONFIG["hidden_size"], BASE_CONFIG["intermediate_size"], BASE_CONFIG["num_hidden_layers"]
    weights = layers * (4 * d * d + 3 * d * f + 2 * d) + d + BASE_CONFIG["vocab_size"] * d
    assert weights == pytest.approx(700_000, rel=0.05)


def test_the_config_builds_a_plain_llama():
    from transformers import LlamaConfig

    config = LlamaConfig(**BASE_CONFIG)
    assert config.tie_word_embeddings
    assert (config.pad_token_id, config.bos_token_id, config.eos_token_id) == (0, 1, 2)


def test_the_hash_is_short_and_stays():
    assert len(world_hash()) == 16
    assert world_hash() == world_hash()


def test_words_are_free_of_case_space_and_marks():
    assert words("  Help, my TAP\n(drips)! It's_old") == ("help", "my", "tap", "drips", "it's", "old")
