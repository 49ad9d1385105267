"""tuneful: tune a language model to what people prefer."""

__version__ = "0.1.0"
