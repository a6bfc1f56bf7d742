"""The card of a model folder: a README.md that says where the weights come from.

It begins with fields between two lines of dashes, in the YAML that model hubs read; those under
`clipbert` are ours: the files that the weights were made from with their hashes, and what was left
out.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from clipbert.checkpoints.tensor_files import hash_file
from clipbert.model.config import ClipBertConfig

CARD_FILE = "README.md"
_FENCE = "---"


@dataclass(frozen=True)
class SourceFile:
    """A file that weights were made from.

    Attributes:
        role: what it is.
        name: without its folder.
        size_bytes: of the file.
        sha256: of its bytes, 64 hexadecimal digits.
    """

    role: str
    name: str
    size_bytes: int
    sha256: str

    @classmethod
    def of(cls, role: str, path: Path) -> "SourceFile":
        """Describe a file; reads it whole, a piece at a time."""
        path = Path(path)
        return cls(role, path.name, path.stat().st_size, hash_file(path))


@dataclass(frozen=True)
class ModelCard:
    """What a model's card says.

    Attributes:
        summary: what the model is, a sentence or two.
        sources: the files that its weights were made from.
        skipped: what was in those files and is not in the model: elements by group of keys.
        random: parts of the model that no file gave, and that were drawn at random.
    """

    summary: str
    sources: tuple[SourceFile, ...] = ()
    skipped: Mapping[str, int] = field(default_factory=dict)
    random: tuple[str, ...] = ()

    def to_markdown(self, config: ClipBertConfig, *, name: str, dtype: str) -> str:
        """Write the card.

        Args:
            config: of the model.
            name: what to call the model.
            dtype: of its saved weights.
        """
        sections = [
            self._fields(config, dtype),
            f"# {_one_line(name)}\n\n{self.summary}\n\n{_describe(config, dtype)}\n",
            self._describe_sources(),
            _USAGE,
        ]
        return "\n".join(section for section in sections if section)

    def _fields(self, config: ClipBertConfig, dtype: str) -> str:
        """Return the fields; JSON is YAML too, and needs no care with what file names may hold."""
        own = {
            "heads": [head.name for head in config.heads],
            "dtype": dtype,
            "sources": [
                {"role": s.role, "name": s.name, "size_bytes": s.size_bytes, "sha256": s.sha256}
                for s in self.sources
            ],
            "skipped": dict(self.skipped),
            "random": list(self.random),
        }
        lines = [
            _FENCE,
            "library_name: clipbert",
            "clipbert:",
            *(f"  {key}: {json.dumps(value)}" for key, value in own.items()),
            _FENCE,
        ]
        return "\n".join(lines) + "\n"

    def _describe_sources(self) -> str:
        lines = []
        if self.sources:
            lines += [
                "## Where the weights come from",
                "",
                "| file | what | SHA-256 |",
                "|---|---|---|",
            ]
            lines += [f"| {_cell(s.name)} | {s.role} | `{s.sha256}` |" for s in self.sources]
            lines.append("")
        if self.random:
            lines += [f"Drawn at random, to be trained: {', '.join(self.random)}.", ""]
        if self.skipped:
            lines += ["In the files and not in the model:", ""]
            lines += [f"- `{group}`: {count:,} elements" for group, count in self.skipped.items()]
            lines.append("")
        return "\n".join(lines)


def _describe(config: ClipBertConfig, dtype: str) -> str:
    heads = ", ".join(f"{head.name} ({head.num_outputs})" for head in config.heads) or "none"
    plan = config.plan
    rows = (
        ("heads (outputs)", heads),
        ("trained heads", ", ".join(config.trained_heads) or "none"),
        ("frames", f"{config.max_side_px} px, {config.channel_order.upper()}"),
        ("visual tokens of a clip", f"{config.grid_side} x {config.grid_side}"),
        ("cross-encoder", f"{config.num_layers} layers of {config.hidden_size}"),
        ("longest text", f"{config.max_text_tokens} tokens"),
        ("aggregation over clips", config.aggregation),
        ("sampling plan", f"{plan.name}, {plan.num_clips} clips of {plan.frames_per_clip} frames"),
        ("weights", dtype),
    )
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def _cell(text: str) -> str:
    return _one_line(text).replace("|", "\\|")


def _one_line(text: str) -> str:
    return " ".join(text.split())


_USAGE = """\
## Use

```python
from clipbert import ClipBert

model = ClipBert.from_pretrained("this folder")
```

How well it works has not been measured here: `clipbert evaluate` does that.
"""
