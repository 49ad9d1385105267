"""Where the inputs of stages come from: earlier stages, files, data sets by name, and worlds that are passed in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

from tuneful.data.formats import read_prompts
from tuneful.data.sources import fetched, resolve
from tuneful.data.splits import Purpose, R, Splits, prompt_of
from tuneful.errors import ConfigError, ModelError, TunefulError, did_you_mean
from tuneful.evaluation.comparison import Measure
from tuneful.generation.sampling import fold
from tuneful.models.loading import encoder_decoder
from tuneful.pipeline.evaluated import Evaluated
from tuneful.pipeline.learner_inputs import TrainingInputs
from tuneful.pipeline.marks import JUDGED, Kind, marked, named
from tuneful.pipeline.recipe import Recipe, Stage
from tuneful.records import Candidates, Judgment, Prompt
from tuneful.rewards.load import refuse_missing
from tuneful.rewards.rules import read_words
from tuneful.runs.manifest import file_hash, tree_hash


class Display(Protocol):
    """Tells a person how far a run is."""

    def stage(self, name: str, kind: str) -> None:
        """A stage begins."""
        ...

    def step(self, done: int, total: int, metrics: Mapping[str, float]) -> None:
        """`done` of `total` steps of the stage are done."""
        ...

    def note(self, text: str) -> None:
        """Something worth a line."""
        ...


class Silent:
    """A display that shows nothing."""

    def stage(self, name: str, kind: str) -> None: ...

    def step(self, done: int, total: int, metrics: Mapping[str, float]) -> None: ...

    def note(self, text: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Labeling:
    """Judgments, and what only a simulation knows: each rater's kind, for the report alone. instructions: Markdown for
    people who judge the same items later."""

    judgments: list[Judgment]
    kinds: Mapping[str, str] = field(default_factory=dict)
    instructions: str = ""


Raters = Callable[[Sequence[Candidates], int, int, int], Labeling]
"""(items, raters per item, seed, round) -> judgments. The seed says who the raters are, whatever the round."""


@dataclass(frozen=True, slots=True)
class World:
    """Inputs that are made and not read, by name; a recipe writes `world:name`."""

    models: Mapping[str, Callable[[Callable[[int, int, Mapping[str, float]], None]], Path]] = field(
        default_factory=dict
    )
    """Each makes (or finds) a model directory, telling its progress."""
    prompts: Mapping[str, Callable[[], list[Prompt]]] = field(default_factory=dict)
    raters: Mapping[str, Raters] = field(default_factory=dict)
    measures: Mapping[str, Measure] = field(default_factory=dict)
    """What evaluation may measure; no stage that trains is ever given these."""


@dataclass(frozen=True, slots=True)
class Handed:
    """What was read from one source: its prompts by split, and how many records were kept from all stages, and why."""

    source: str
    splits: Splits[Prompt]
    left_out: Mapping[str, int]


@dataclass(slots=True)
class Context:
    """What stages share: the pipeline's folder, its seed, the splits, the worlds and the display."""

    out: Path
    seed: int
    shares: Mapping[str, float]
    held_out: tuple[str, ...]
    worlds: Mapping[str, World]
    display: Display
    judged: tuple[str, ...]
    """Data whose dev and test splits some stage evaluates on."""
    round: int = 1
    splits: dict[str, Splits[Prompt]] = field(default_factory=dict)
    _handed: list[Handed] = field(default_factory=list)
    """Everything that stages read prompts through."""
    _evaluated: Evaluated = field(init=False)

    @classmethod
    def of(cls, recipe: Recipe, out: Path, worlds: Mapping[str, World], display: Display) -> Context:
        """What the stages of `recipe` share when it runs into `out`."""
        judged = {text: None for stage in recipe.stages for kind in JUDGED for text in named(stage.inputs, kind)}
        return cls(out, recipe.seed, recipe.splits, recipe.held_out, worlds, display, tuple(judged))

    def __post_init__(self) -> None:
        files = tuple(name for name in self.judged if not (name.startswith("@") or self._of_world(name)))
        self._evaluated = Evaluated(self.held_out, files, self.shares)

    def seed_of(self, purpose: str) -> int:
        """The seed of what is drawn for `purpose` in this round."""
        return fold(self.seed, purpose) if self.round == 1 else fold(self.seed, purpose, self.round)

    def progress(self, done: int, total: int) -> None:
        """Tell the display of work that has no metrics."""
        self.display.step(done, total, {})

    def model(self, reference: str) -> str:
        """A model directory or hub id."""
        if reference.startswith("@"):
            return str(self.out / reference[1:] / "model")
        made = self._made(reference, "models")
        return str(made(self.display.step)) if made is not None else reference

    def prompts(self, reference: str) -> Splits[Prompt]:
        """The split prompts of a file, data set or world; the same object for all stages that name it."""
        if reference not in self.splits:
            made = self._made(reference, "prompts")
            found = made() if made is not None else read_prompts(resolve(reference), on_skip=self.display.note)
            kept, left_out = self._apart(found, reference)
            self.splits[reference] = self._split(kept, reference, left_out)
        return self.splits[reference]

    def rows(
        self, found: Sequence[R], reference: str, names: Iterable[str], *, purpose: Purpose, stage: str = ""
    ) -> list[R]:
        """Those of the rows `found` in `reference` whose prompts are in the splits `names`, in their order.

        Raises DataError when `purpose` may not see one of these splits.
        """
        rows, left_out = self._apart(found, reference)
        splits = self._split([prompt_of(row) for row in rows], reference, left_out)
        filled = set(splits.manifest().values())
        read = {p.id for name in names if name in filled for p in splits.read(name, purpose=purpose, stage=stage)}
        return [row for row in rows if prompt_of(row).id in read]

    def provenance(self, stage: str) -> dict[str, Any]:
        """For the `run.json` of a stage: what it read for what, and the split of every prompt in what it read.

        {"splits": {prompt id: split}, "reads": [{"source", "split", "purpose", "stage"}]}, and "left_out", {source:
        {reason: how many}}, where anything was; {} when it read no prompts.
        """
        own = [(handed, [r for r in handed.splits.reads if r["stage"] == stage]) for handed in self._handed]
        own = [(handed, found) for handed, found in own if found]
        reads = [{"source": handed.source, **read} for handed, found in own for read in found]
        where = {prompt: name for handed, _ in own for prompt, name in handed.splits.manifest().items()}
        left_out = {handed.source: dict(handed.left_out) for handed, _ in own if handed.left_out}
        facts = {"splits": where, "reads": reads} if reads else {}
        return facts | ({"left_out": left_out} if left_out else {})

    def _split(self, prompts: Sequence[Prompt], reference: str, left_out: Mapping[str, int]) -> Splits[Prompt]:
        splits = Splits(prompts, {"test": 1.0} if reference in self.held_out else self.shares)
        self._handed.append(Handed(reference, splits, left_out))
        return splits

    def _apart(self, records: Sequence[R], source: str) -> tuple[list[R], dict[str, int]]:
        """Those records that do not give away what is evaluated on, and how many of the others there are and why.

        No split has a record whose first user turn is in a held-out file; those that are trained on have none that
        overlaps with a prompt of a held-out file or of a dev or test split. A held-out file is left whole. So are the
        prompts of a world, where the same few parts are put together in many ways.
        """
        if source in self.held_out:
            return list(records), {}
        unseen = self._evaluated.without_held_out(records)
        kept = unseen if self._of_world(source) else self._evaluated.without_near_copies(unseen)
        shared, near = len(records) - len(unseen), len(unseen) - len(kept)
        if shared:
            self.display.note(f"{source}: {shared} rows share their first turn with held-out prompts and are left out")
        if near:
            self.display.note(
                f"{source}: {near} rows are near copies of dev, test or held-out prompts and are left out"
            )
        return kept, {why: count for why, count in (("held out", shared), ("near copies", near)) if count}

    def _of_world(self, reference: str) -> bool:
        world, colon, _ = reference.partition(":")
        return bool(colon) and world in self.worlds

    def file(self, reference: str, name: str) -> Path:
        """The file `name` that stage `@reference` wrote, or the file or data set that `reference` is."""
        return self.out / reference[1:] / name if reference.startswith("@") else resolve(reference)

    def files(self, references: str | Iterable[str], name: str) -> list[Path]:
        """The `file` of one reference or of each of several."""
        return [self.file(r, name) for r in ([references] if isinstance(references, str) else references)]

    def origins(self, given: Any) -> dict[str, Any]:
        """Where a stage's inputs come from, for its `run.json`: earlier stages; files and models with their hashes.

        What has no file of its own here, a hub id or `world:thing`, has no hash.
        """
        data, rewards = named(given, "data"), named(given, "rewards")
        models = [*named(given, "models"), *rewards]
        functions = [file for file, _, _ in (reward.partition(":") for reward in rewards) if file.endswith(".py")]
        folders = {model: Path(model).expanduser() for model in sorted(models)}
        return {
            "parents": sorted({text[1:] for text in (*data, *models) if text.startswith("@")}),
            "data": data_hashes([*data, *functions]),
            "models": {model: tree_hash(folder) for model, folder in folders.items() if folder.is_dir()},
        }

    def refuse_unknown(self, given: Any) -> None:
        """ConfigError for a stage's `world:thing` that the world does not offer, and for raters and measures of none.

        Nothing is made: this can be asked of the last stage before the first one runs.
        """
        for reference in named(given, "models"):
            self._made(reference, "models")
        for reference in named(given, "prompts"):
            self._made(reference, "prompts")
        for reference in named(given, "raters"):
            self.raters(reference)
        for reference in named(given, "measures"):
            self.measure(reference)

    def refuse_missing(self, given: Any, stages: Sequence[str] = ()) -> None:
        """TunefulError naming the setting for data, models and rewards of a stage that are not to be found.

        Own rewards are loaded, data of the hub fetched; of models only their configs are read. Judgments may come
        later: people write them once an earlier stage of the same recipe has answered, and then the run goes on.
        stages: those before it, which a name without its @ may have meant.
        """
        for setting, marks, text in marked(given):
            try:
                if text.startswith("@") or "judgments" in marks:
                    continue
                if "rewards" in marks:
                    refuse_missing(text, stages)
                elif "words" in marks:
                    read_words(text)
                elif marks & {"models", "prompts"} and self._of_world(text):
                    continue
                elif "data" in marks:
                    resolve(text)
                elif "models" in marks and text in stages and not Path(text).is_dir():
                    raise ModelError(f'{text}: no such model directory; did you mean "@{text}"?')
                elif "models" in marks:
                    encoder_decoder(text)
            except TunefulError as error:
                raise type(error)(f"{setting}: {error}") from error

    def family(self, given: Any, unmade: Mapping[str, Stage]) -> str | None:
        """The type of the encoder-decoder that a stage trains, by configs alone; None for other models and stages.

        unmade: stages before it that are not done, whose models will be of the family that they start from. None for a
        model of a world too, which would have to be made to be asked.
        """
        if not isinstance(given, TrainingInputs):
            return None
        model: str = cast("Any", given).model
        while model.startswith("@"):
            name = model[1:]
            model = unmade[name].inputs.model if name in unmade else str(self.out / name / "model")
        return None if self._of_world(model) else encoder_decoder(model)

    def raters(self, reference: str) -> Raters:
        found = self._made(reference, "raters")
        if found is None:
            raise ConfigError(
                f'raters = "{reference}" are not known; write `world:raters`, for example "demo:labelers"'
            )
        return found  # type: ignore[no-any-return]

    def measure(self, reference: str) -> Measure:
        found = self._made(reference, "measures")
        if found is None:
            raise ConfigError(f'measure "{reference}" is not known; write `world:measure`, for example "demo:toxicity"')
        return found  # type: ignore[no-any-return]

    def _made(self, reference: str, kind: Kind) -> Any:
        """What a world offers under `world:name`; None when the reference names no world."""
        if not self._of_world(reference):
            return None
        world, _, name = reference.partition(":")
        offered: Mapping[str, Any] = getattr(self.worlds[world], kind)
        if name not in offered:
            raise ConfigError(f'"{reference}": the {world} world has no such {kind}{did_you_mean(name, offered)}')
        return offered[name]


def data_hashes(names: Iterable[str]) -> dict[str, str]:
    """SHA-256 of the files behind paths and names of data sets, fetched now where they come from the hub.

    What no file stands for is left out.
    """
    files = {name: fetched(name) for name in sorted(names)}
    return {name: file_hash(file) for name, file in files.items() if file is not None}
