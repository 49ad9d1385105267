"""Labelers of one project, a thread each, who claim and submit until they are killed: python ... URL PROJECT RATER ...

A line of standard output is a judgment whose receipt came back: its id, and whether it counted.
"""

from __future__ import annotations

import sys
import time
import uuid
from threading import Thread

from tuneful.feedback.assignment import claim
from tuneful.feedback.store import Store
from tuneful.feedback.submission import Said, submit


def work(store: Store, project: str, rater: str) -> None:
    while (given := claim(store, project, rater, now=time.time())) is not None:
        said = Said(id=str(uuid.uuid4()), ranks=(1, 2), flags={}, values={})
        receipt = submit(store, given.id, rater, said, now=time.time())
        sys.stdout.write(f"{said.id} {receipt.counted}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    url, project, *raters = sys.argv[1:]
    store = Store.open(url)
    threads = [Thread(target=work, args=(store, project, rater), daemon=True) for rater in raters]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
