"""Plots as the pages of docs/ show them."""

from __future__ import annotations

from collections.abc import Iterable


def one_file(plots: Iterable[str]) -> str:
    """One SVG file of the report's plots, one under the other, with its colours for light and dark."""
    width, height = 460, 250
    drawn = [
        str(plot).replace("<svg ", f'<svg y="{k * height}" width="{width}" height="{height}" ', 1)  # Markup escapes
        for k, plot in enumerate(plots)
    ]
    light = "--faint: #6b675e; --rule: #e3dfd5; --before: #81735c; --after: #14756a; --ground: #fbfaf7"
    dark = "--faint: #a09c92; --rule: #2d3136; --before: #a8977d; --after: #5fc5b4; --ground: #15171a"
    style = (
        f"svg {{ {light}; font-family: sans-serif }} @media (prefers-color-scheme: dark) {{ svg {{ {dark} }} }} "
        ".ground { fill: var(--ground) }"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height * len(drawn)}">'
        f'<style>{style}</style><rect class="ground" width="100%" height="100%"/>{"".join(drawn)}</svg>\n'
    )
