"""The demo world: household talk in which the true preference is known, so that every claim can be checked."""
