"""One configuration for every kind of run: what decides it, and where and how fast it runs.

    config = Config.of("search", task="folder", data="flowers", evaluations=500, workers=8)
    run_search(config, "runs/flowers")

A configuration has sections: the task, the evaluator, the searcher, the settings of its kind, and
the pool (which decides nothing but speed). An option is declared once, on the field that it fills;
`Config.of`, the command line and configuration files use the same names. A run folder's
config.json is such a file; `[task]`, `[evaluator]`, ... are its tables in TOML.

Sections and settings are declared in settings.py, kinds of runs in kinds.py.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from policies.errors import InputError, check_choice
from policies.files import MAX_JSON_BYTES, parse_json, read_text
from policies.imports import import_path
from policies.options import options_of, to_json, unknown_option
from proxy_tasks.evaluators.config import (
    MEMBERS,
    OF_CHILDREN,
    SHARING,
    TRAINED,
    EvaluatorConfig,
    resolve,
)
from proxy_tasks.run_format import (
    CONFIG_NAME,
    RUN_FORMAT,
    RUN_VERSION,
    STAGED,
    check_run_format,
    read_run_config,
)
from search.engine.resources import PoolConfig

from .kinds import COUNTED, KINDS, options_of_kind, section_classes
from .settings import SearcherConfig, TaskConfig, check_entries

# Who searches where nothing is said, with a number of evaluations; within a budget STAGED.
PLAIN = "ppo"


@dataclass(frozen=True)
class Config:
    """Everything that decides a run, and `pool`, which decides where and how fast."""

    kind: str
    task: TaskConfig
    evaluator: EvaluatorConfig
    settings: Any
    searcher: SearcherConfig | None = None
    pool: PoolConfig = field(default_factory=PoolConfig)

    def __post_init__(self) -> None:
        for name, cls in section_classes(self.kind).items():
            value = getattr(self, name)
            if not isinstance(value, cls) and not (name == "searcher" and value is None):
                raise InputError(
                    name, f"must be {cls.__name__} for the kind {self.kind}", value,
                    f"build it with Config.of({self.kind!r}, ...)",
                )  # fmt: skip

    @classmethod
    def of(cls, kind: str, **values: Any) -> Config:
        """The configuration of a run from the options that differ from their defaults.

        Args:
            kind: one of `KINDS`, the name of the command.
            values: options by the names of the command line, with underscores; for a part of your
                own its import path, or the callable itself if other processes can import it.

        Raises:
            InputError: for an unknown option or a value that breaks its rule.
        """
        check_choice("kind", kind, tuple(KINDS))
        about = KINDS[kind]
        known = {declared.name for _, declared in options_of_kind(kind)} | {about.like} - {""}
        for name in values:
            if name not in known:
                raise unknown_option(name, known, f"option of {kind}")
        if values.get("evaluator") == MEMBERS:
            raise InputError(
                "evaluator", "must judge a candidate by itself", MEMBERS,
                "leave it out; `augsearch pba` trains a population",
            )  # fmt: skip
        nested: dict[str, dict[str, Any]] = {}
        values = {name: _named(name, value) for name, value in values.items()}
        given = {**about.defaults, **_of_preset(kind, values), **values}
        sections = section_classes(kind)
        for section, part in sections.items():
            for declared in options_of(part):
                if declared.name in given:  # settings come first, and may use any name
                    nested.setdefault(section, {})[declared.field] = given.pop(declared.name)
        if about.like:
            return _like(kind, values, nested)
        if "searcher" in about.sections:
            _resolve_searcher(nested)
        _resolve(nested)
        return cls._build(kind, nested)

    @classmethod
    def _build(cls, kind: str, nested: Mapping[str, Any]) -> Config:
        parts: dict[str, Any] = {}
        for section, part in section_classes(kind).items():
            values = nested.get(section)
            if values is None and section == "searcher":
                continue
            for declared in options_of(part):
                if declared.required and declared.field not in (values or {}):
                    raise InputError(
                        declared.name, "must be given", None, f"it is: {declared.option.help}"
                    )
            parts[section] = part(**(values or {}))
        return cls(kind=kind, **parts)

    def to_json(self) -> dict[str, Any]:
        """As config.json holds it."""
        return {"format": RUN_FORMAT, "version": RUN_VERSION, **to_json(self)}

    @classmethod
    def from_json(cls, data: Any, where: str = CONFIG_NAME) -> Config:
        """The configuration that `to_json` wrote; what it lacks takes the fields' defaults.

        Raises:
            InputError: naming `where`, for another kind of file, another version or unknown fields.
        """
        return cls._build(*_nested(check_run_format(data, where), where))

    def changed(self, **values: Any) -> Config:
        """This configuration with other values, named as in `of`; InputError for unknown names."""
        parts: dict[str, dict[str, Any]] = {}
        for name, value in values.items():
            for section, declared in options_of_kind(self.kind, hidden=True):
                if declared.name == name:
                    parts.setdefault(section, {})[declared.field] = value
                    break
            else:
                known = {declared.name for _, declared in options_of_kind(self.kind)}
                raise unknown_option(name, known, f"option of {self.kind}")
        new = {section: replace(getattr(self, section), **part) for section, part in parts.items()}
        return replace(self, **new)


def _of_preset(kind: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Defaults that go with the preset; evaluations and a budget stand for each other."""
    about = KINDS[kind]
    if not about.presets:
        return {}
    preset = values.get("preset", about.defaults["preset"])
    check_choice("preset", preset, about.presets)
    left = COUNTED if any(values.get(name) is not None for name in COUNTED) else frozenset()
    return {name: v for name, v in about.presets[preset].items() if name not in left}


def of_presets(kind: str, **values: Any) -> list[Config]:
    """The configuration with every preset that says something of this kind, or the one given."""
    presets = [values["preset"]] if values.get("preset") else list(KINDS[kind].presets)
    if not presets:
        return [Config.of(kind, **values)]
    return [Config.of(kind, **{**values, "preset": preset}) for preset in presets]


def _named(name: str, value: Any) -> Any:
    """The value as a file holds it: callables, also inside it, by their import paths."""
    if isinstance(value, Mapping):
        return {key: _named(str(key), each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_named(name, each) for each in value]
    return import_path(name, value) if callable(value) else value


def _resolve_searcher(nested: dict[str, dict[str, Any]]) -> None:
    """Searcher and cheap evaluator, where they are left open.

    A staged search goes by children from scratch where the evaluator that suits the task is a
    cheaper one, and has that for its cheap evaluations.
    """
    searcher, settings = nested.setdefault("searcher", {}), nested.setdefault("settings", {})
    if searcher.get("name") is None:
        searcher["name"] = PLAIN if settings.get("evaluations") is not None else STAGED
    cheap: dict[str, Any] = {}
    if searcher["name"] == STAGED:
        evaluator = nested.setdefault("evaluator", {})
        cheap = cheap_of(evaluator.get("kind"), *_preset_and_task(nested))
        if cheap:
            evaluator["kind"] = "from-scratch"
    if settings.get("cheap") is None:
        settings["cheap"] = cheap


def cheap_of(kind: str | None, preset: str, task: str) -> dict[str, Any]:
    """The cheap evaluator of a staged search that goes by `kind`, as a setting; {}: none suits.

    None stands for the evaluator that suits the task.
    """
    measured = resolve(None, None, preset, task)[0]
    suits = measured in SHARING and kind in (None, "from-scratch")
    return {"kind": measured} if suits else {}


def _preset_and_task(nested: Mapping[str, Mapping[str, Any]]) -> tuple[str, str]:
    preset = nested.get("evaluator", {}).get("preset", EvaluatorConfig.preset)
    return preset, nested.get("task", {}).get("name", TaskConfig.name)


def _resolve(nested: dict[str, dict[str, Any]]) -> None:
    """Evaluator and reward that suit the task, where they are left open."""
    evaluator = nested.setdefault("evaluator", {})
    preset, task = _preset_and_task(nested)
    kind, reward = resolve(evaluator.get("kind"), evaluator.get("reward"), preset, task)
    evaluator |= {"kind": kind, "reward": reward}


def _like(kind: str, values: Mapping[str, Any], nested: dict[str, dict[str, Any]]) -> Config:
    """A configuration with the task, the evaluator and the pool of another run."""
    name = KINDS[kind].like
    if name not in values:
        raise InputError(name, "must name the folder of a run", None, f"see --help of {kind}")
    searched = read_config(Path(nested["settings"][name]))
    wanted = {k: v for k, v in nested.get("evaluator", {}).items() if v is not None}
    child = to_json(searched.evaluator)
    wanted.setdefault("kind", "from-scratch" if child["kind"] in SHARING else child["kind"])
    if wanted["kind"] != child["kind"]:
        # Epochs and the reward that suits belong to a kind; what its children are made of stays.
        kept = {name: child["options"][name] for name in OF_CHILDREN if name in child["options"]}
        child |= {"epochs": None, "options": kept if wanted["kind"] in TRAINED else {}}
        wanted.setdefault("reward", resolve(wanted["kind"], None, child["preset"], "")[1])
    return Config._build(
        kind,
        {
            **nested,
            "task": to_json(searched.task),
            "evaluator": {**child, **wanted},
            "pool": {**to_json(searched.pool), **nested.get("pool", {})},
        },
    )


# Files -----------------------------------------------------------------------------------------


def _nested(data: Mapping[str, Any], where: str) -> tuple[str, dict[str, Any]]:
    """(kind, sections) of a configuration file, with known names only."""
    kind = data.get("kind")
    try:
        sections = section_classes(kind)  # type: ignore[arg-type]
    except InputError as error:
        raise InputError(f"{where}, kind", error.rule, kind, error.fix) from None
    nested = {}
    for name, values in data.items():
        if name in ("format", "version", "kind"):
            continue
        if name not in sections:
            for section, declared in options_of_kind(str(kind)):
                if declared.name == name.replace("-", "_"):
                    raise InputError(
                        f"{where}, {name}", "must stand in its section", values,
                        f"write it as {section}.{declared.field}, see docs/options.md",
                    )  # fmt: skip
            raise unknown_option(name, sections, f"{where}, section")
        if values is None and name == "searcher":
            continue
        if not isinstance(values, dict):
            raise InputError(f"{where}, {name}", "must be an object", values, "see the docs")
        known = [f.name for f in fields(sections[name])]
        for each in values:
            if each not in known:
                raise unknown_option(each, known, f"{where}, {name}")
        nested[name] = values
    return kind, nested  # type: ignore[return-value]


def read_config(folder: Path) -> Config:
    """The configuration of the run in `folder`. Raises InputError naming the file."""
    return Config.from_json(read_run_config(folder), str(folder / CONFIG_NAME))


# What options of policies named when a run was begun, by the field that holds it.
_REMEMBERED = ("arms", "arm", "optimised")
# Options that fit one choice only, by the name of the option that chooses.
_OF_A_CHOICE = {"searcher": ("searcher_options", "cheap"), "evaluator": ("evaluator_options",)}
# Arms that are what other options make them.
_DERIVED = re.compile(r"published|random:.*")


def with_recorded(config: Config, held: Mapping[str, Mapping[str, Any]]) -> Config:
    """With what a run's config.json holds and no option says, by section (of `read_options`): what
    the policies were that it names, since its paths may lead elsewhere, and what its kind decides.

    An arm that is named otherwise now is another one.
    """
    settings = dict(held.get("settings", {}))
    if "arm" in settings:
        [arm] = check_entries("arm", "text", [settings["arm"]])
        if arm["text"] != config.settings.policy:
            del settings["arm"]
    if "arms" in settings:
        arms = check_entries("arms", "text", settings["arms"])
        settings["arms"] = tuple(a for a in arms if not _DERIVED.fullmatch(a["text"]))
    if "optimised" in settings:
        settings["optimised"] = check_entries("optimised", "run", settings["optimised"])
    parts = {**held, "settings": settings}
    return replace(
        config, **{name: replace(getattr(config, name), **part) for name, part in parts.items()}
    )


def overridden(options: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a file with those given over them, which take the place of what excludes them
    or belongs to another choice."""
    gone = {*COUNTED} if any(given.get(name) is not None for name in COUNTED) else set()
    for name, fitting in _OF_A_CHOICE.items():
        if {name} <= options.keys() & given.keys() and given[name] != options[name]:
            gone |= {*fitting}
    return {**{name: value for name, value in options.items() if name not in gone}, **given}


def read_options(path: str | Path, kind: str) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """From a configuration file (TOML, or JSON such as a run's config.json) the options by name,
    and for `with_recorded` what only a run's own file may hold, by section.

    Raises InputError for what is no such file, and for what the kind decides itself.
    """
    path = Path(path)
    text = read_text(path, "configuration", MAX_JSON_BYTES)
    form, parse = ("TOML", tomllib.loads) if path.suffix == ".toml" else ("JSON", parse_json)
    try:
        data = parse(text)
    except ValueError as error:
        fix = "mend it" if form == "TOML" else "mend it; TOML is in a file whose name ends in .toml"
        raise InputError(str(path), f"must be {form}", str(error), fix) from error
    if not isinstance(data, dict):
        raise InputError(str(path), "must hold the options of a run", data, "see the docs")
    own = "format" in data
    if own:
        check_run_format(data, str(path))
    data.setdefault("kind", kind)
    if data["kind"] != kind:
        raise InputError(
            f"{path}, kind", f"must be {kind}, as the command is", data["kind"],
            f"use `augsearch {data['kind']}`",
        )  # fmt: skip
    _, nested = _nested(data, str(path))
    options = {
        declared.name: nested[section][declared.field]
        for section, declared in options_of_kind(kind)
        if declared.field in nested.get(section, {})
    }
    settings = nested.get("settings", {})
    held = {"settings": {name: settings[name] for name in _REMEMBERED if settings.get(name)}}
    if KINDS[kind].like:  # all else is that of the run that it goes on from
        return options, held
    for section, declared in options_of_kind(kind, hidden=True):
        part = nested.get(section, {})
        if declared.name in options or declared.field not in part or section == "pool":
            continue
        if not own:
            raise InputError(
                f"{path}, {section}.{declared.field}", f"must be left to {kind}",
                part[declared.field], "leave it out",
            )  # fmt: skip
        held.setdefault(section, {})[declared.field] = part[declared.field]
    arm = settings.get("arm")
    recipe = arm.get("recipe") if isinstance(arm, dict) else None
    for name, piece in (recipe if isinstance(recipe, dict) else {}).items():
        if options.get(name) == piece:  # the policy brought it, and another brings its own
            del options[name]
    return options, held
