"""What the judgments of a project say together, kept while the server runs.

It is fitted at once where they are few; where they are many, in a thread, while pages show what was fitted last.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable
from threading import Lock, Thread

from tuneful.errors import TunefulError
from tuneful.feedback.overview import Agreed, agreement, overview_state
from tuneful.feedback.quality import FEW, num_rows
from tuneful.feedback.store import Store


class Fits:
    """The newest agreement of each project of a store. Safe to share among threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kept: dict[str, tuple[Hashable, Agreed]] = {}
        self._under_way: dict[str, Thread] = {}
        self._lock = Lock()

    def newest(self, project_id: str) -> tuple[Agreed, bool]:
        """The agreement, and whether a newer one is being fitted; an empty one before the first of many judgments."""
        state = overview_state(self._store, project_id)
        kept = self._kept.get(project_id)
        if kept is not None and kept[0] == state:
            return kept[1], False
        if num_rows(self._store, project_id) <= FEW:
            return self._fit(project_id, state), False
        with self._lock:
            if project_id not in self._under_way:
                thread = Thread(target=self._fit_beside, args=(project_id, state), daemon=True)
                self._under_way[project_id] = thread
                thread.start()
        return (Agreed() if kept is None else kept[1]), True

    def last(self, project_id: str) -> Agreed:
        """The one that was fitted last, whatever was judged since: a page of many must not wait for it."""
        kept = self._kept.get(project_id)
        return self.newest(project_id)[0] if kept is None else kept[1]

    def wait(self, project_id: str) -> None:
        """Until nothing is being fitted."""
        with self._lock:
            thread = self._under_way.get(project_id)
        if thread is not None:
            thread.join()

    def _fit(self, project_id: str, state: Hashable) -> Agreed:
        made = agreement(self._store, project_id)
        self._kept[project_id] = (state, made)
        return made

    def _fit_beside(self, project_id: str, state: Hashable) -> None:
        try:
            self._fit(project_id, state)
        except TunefulError as error:  # the next look begins it again
            logging.getLogger(__name__).warning("project %s: %s", project_id, error)
        finally:
            with self._lock:
                del self._under_way[project_id]
