"""Tables of measured policies: one row per evaluation, in one Parquet file that explains itself.

    table = load_table("cifar10-1k")       # a packaged one, or the path of a table.parquet
    table.frame[["policy", "family", "fidelity", "seed", "accuracy", "test_accuracy", "seconds"]]

`augsearch tabulate` makes them. The file's schema has the metadata key "augsearch": JSON with the
version of the format, the task, the hash of its manifest, the configuration of every fidelity, the
versions of the packages and the licence of the figures. No image is in it.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from policies.augmentations import Augmentation, decode_augmentation, encode_augmentation
from policies.errors import InputError, check_choice
from policies.files import digest, parse_json, read_file, read_json

if TYPE_CHECKING:
    import pandas as pd

FORMAT, VERSION = "augsearch-table", 1
KEY = b"augsearch"
LICENCE = "Apache-2.0"
# Packaged tables stay small; one that users make may be larger.
MOST_PACKAGED_BYTES = 4 * 2**20
MAX_BYTES = 2**28
FOLDER = Path(__file__).parent / "tables"

OPTIMISED = "optimised"
FAMILIES = (
    "none", "published", "trivialaugment", "uniformaugment", "randaugment", "single",
    "random-5x2", "random-25", OPTIMISED,
)  # fmt: skip
TESTED = "scratch"  # the fidelity whose rows have a test accuracy, and the reference of the others
METRICS = ("accuracy", "log_likelihood", "calibrated_log_likelihood")
# Column -> type in the file, as pyarrow calls it; only `test_accuracy` may be null.
COLUMNS = {
    "policy": "string",
    "family": "string",
    "source": "string",
    "fidelity": "string",
    "seed": "int64",
    **dict.fromkeys(METRICS, "double"),
    "test_accuracy": "double",
    "seconds": "double",
    "image_passes": "int64",
    "diverged": "bool",
}
ABOUT = ("format", "version", "task", "manifest_hash", "fidelities", "versions", "licence")


@dataclass(frozen=True)
class Table:
    """A table in memory.

    Attributes:
        frame: one row per evaluation with the columns COLUMNS: `policy` (`policy_text`), `family`
            (FAMILIES), `source` (of an optimised policy "searcher, evaluator", else ""),
            `fidelity`, `seed`, validation `accuracy` (0..1), `log_likelihood` and
            `calibrated_log_likelihood` (nats per image), `test_accuracy` (of the same child; NaN
            but for the fidelity "scratch"), `seconds`, `image_passes`, `diverged` (the metrics are
            those of guessing).
        task: name, seed, sizes and so on of the proxy task, without its place.
        manifest_hash: of the images.
        fidelities: name -> {"seeds", "part", "evaluator"}; the evaluator as EvaluatorConfig has it.
        versions: of Python and the packages that measured.
        licence: of the figures, an SPDX expression.
    """

    frame: pd.DataFrame
    task: dict[str, Any]
    manifest_hash: str
    fidelities: dict[str, Any]
    versions: dict[str, str]
    licence: str = LICENCE

    def about(self) -> dict[str, Any]:
        """What the file's metadata say."""
        known = {name: getattr(self, name) for name in ABOUT[2:]}
        return {"format": FORMAT, "version": VERSION, **known}


def policy_text(augmentation: Augmentation) -> str:
    """The one text that a table has for an augmentation: JSON of `encode_augmentation`."""
    return canonical(encode_augmentation(augmentation))


def canonical(data: Any) -> str:
    """JSON without blanks, keys in order."""
    return json.dumps(data, separators=(",", ":"), sort_keys=True, allow_nan=False)


def packaged_tables() -> tuple[str, ...]:
    """Names of the tables that ship."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.parquet")))


def load_table(table: str | Path) -> Table:
    """A table by the name of a packaged one, or by the path of a .parquet file.

    Raises:
        InputError: for an unknown name; for a file that is damaged (a packaged one by its
            sha256), of another format or version, or in which a row breaks a rule.
    """
    text = str(table)
    if text.endswith(".parquet"):
        path = Path(table).expanduser()
        return decode_table(_read(path, MAX_BYTES), str(path))
    check_choice("table", text, (*packaged_tables(), "FILE.parquet"))
    path = FOLDER / f"{text}.parquet"
    content = _read(path, MOST_PACKAGED_BYTES)
    figures = read_json(path.with_suffix(".json"))
    if not isinstance(figures, dict) or figures.get("sha256") != digest(content):
        raise InputError(
            str(path), "must be as it was packaged", "another sha256", "install augsearch anew"
        )
    return decode_table(content, text)


def _read(path: Path, most: int) -> bytes:
    try:
        return read_file(path, most)
    except OSError as error:
        raise InputError(
            "table", "must be a readable .parquet file", f"{path}: {error.strerror}", "check it"
        ) from error


# The file --------------------------------------------------------------------------------------


def encode_table(table: Table) -> bytes:
    """The Parquet file of a table, the same for the same table and version of pyarrow.

    Raises InputError for what `decode_table` would refuse.
    """
    import pyarrow
    from pyarrow import parquet

    _check_frame(table.frame, table.fidelities, "table")
    schema = pyarrow.schema(
        [(name, pyarrow.type_for_alias(kind)) for name, kind in COLUMNS.items()],
        metadata={KEY: canonical(table.about()).encode()},
    )
    rows = pyarrow.Table.from_pandas(table.frame, schema=schema, preserve_index=False)
    stream = io.BytesIO()
    parquet.write_table(rows.replace_schema_metadata(schema.metadata), stream, compression="zstd")
    return stream.getvalue()


def decode_table(content: bytes, where: str) -> Table:
    """Inverse of `encode_table`, strict. Raises InputError naming `where`."""
    import pyarrow
    from pyarrow import parquet

    try:
        rows = parquet.read_table(io.BytesIO(content))
        about = parse_json((rows.schema.metadata or {}).get(KEY, b"null"))
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise _no_table(where, "must be a Parquet file", str(error)) from error
    _check_about(about, where)
    found = {field.name: str(field.type) for field in rows.schema}
    if found != COLUMNS:
        raise _no_table(where, f"must have the columns {', '.join(COLUMNS)}", found)
    for name in COLUMNS:
        if name != "test_accuracy" and rows[name].null_count:
            raise _no_table(where, f"must have no missing {name}", rows[name].null_count)
    frame = rows.to_pandas()
    _check_frame(frame, about["fidelities"], where)
    return Table(frame, **{name: about[name] for name in ABOUT[2:]})


def _check_about(about: Any, where: str) -> None:
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise _no_table(where, "must be a table of augsearch", "no such metadata")
    if about.get("version") != VERSION:
        raise InputError(
            where, f"must be of version {VERSION}", about.get("version"),
            "use the version of augsearch that wrote it",
        )  # fmt: skip
    if about.keys() != set(ABOUT):
        raise _no_table(where, f"must have the metadata {', '.join(ABOUT)}", sorted(about))
    kinds = {"task": dict, "manifest_hash": str, "fidelities": dict, "versions": dict,
             "licence": str}  # fmt: skip
    for name, kind in kinds.items():
        if not isinstance(about[name], kind):
            raise _no_table(where, f"must have proper metadata {name}", about[name])


def _check_frame(frame: pd.DataFrame, fidelities: Mapping[str, Any], where: str) -> None:
    """InputError unless every row keeps the rules of `Table`."""
    tested = frame["fidelity"] == TESTED
    test = frame["test_accuracy"]
    rules = {
        f"families: {', '.join(FAMILIES)}": frame["family"].isin(FAMILIES),
        "a source where the family is optimised, and only there": (
            (frame["source"] != "") == (frame["family"] == OPTIMISED)
        ),
        f"fidelities: {', '.join(fidelities)}": frame["fidelity"].isin(list(fidelities)),
        "seeds of at least 0": frame["seed"] >= 0,
        "accuracies of 0 to 1": frame["accuracy"].between(0, 1),
        **{
            f"{name} of at most 0": frame[name].between(-math.inf, 0, inclusive="right")
            for name in METRICS[1:]
        },
        f"a test accuracy of 0 to 1 for {TESTED}, and only there": (
            test.between(0, 1).where(tested, test.isna())
        ),
        "seconds of at least 0": frame["seconds"].between(0, math.inf, inclusive="left"),
        "image passes of at least 0": frame["image_passes"] >= 0,
        "each policy, fidelity and seed once": ~frame.duplicated(["policy", "fidelity", "seed"]),
    }
    for rule, kept in rules.items():
        if not kept.all():
            row = int(np.flatnonzero(~kept.to_numpy(bool))[0])
            raise _no_table(where, f"must have {rule}", f"row {row}: {dict(frame.iloc[row])}")
    for text in frame["policy"].unique():
        try:
            same = policy_text(decode_augmentation(parse_json(text))) == text
        except ValueError as error:
            raise _no_table(where, "must hold policies", str(error)) from error
        if not same:
            raise _no_table(where, "must hold policies in their one form", text)


def _no_table(where: str, rule: str, found: Any) -> InputError:
    return InputError(where, rule, found, "restore it from a copy, or make it again")
