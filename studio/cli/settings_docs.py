"""What settings.py says, written out: `defaults.yaml` and the table in the README.

`python settings_docs.py` writes both anew; a test sees to it that they are up to date.
"""

import textwrap

import yaml
from pydantic.fields import FieldInfo

from studio.base.paths import DEFAULTS_FILE, README
from studio.engines.registry import MODELS
from studio.settings.settings import (
    RunSettings,
    default_text,
    meta,
    option_name,
    range_text,
    value_type,
)

BEGIN, END = "<!-- settings:begin -->", "<!-- settings:end -->"
INTRODUCTION = """\
# The values that the form and the command line start with. A key left empty counts as not set.
# Written by settings_docs.py from settings.py; edit the values to your taste. The shipped ones suit
# the bundled weights on a CPU; what suits published weights on a GPU stands beside them.
"""


def defaults_yaml(kind: type[RunSettings]) -> str:
    """`defaults.yaml` as it is shipped."""
    blocks = [_yaml_block(name, field) for name, field in kind.model_fields.items()]
    return "\n".join([INTRODUCTION, *blocks])


def readme_table(kind: type[RunSettings]) -> str:
    """A markdown table of all settings."""
    rows = [_row(name, field) for name, field in kind.model_fields.items()]
    head = ["| Setting | Option | Range | Default | What it does |", "|---|---|---|---|---|"]
    return "\n".join([*head, *rows])


def with_table(readme: str, table: str) -> str:
    """The README with the table between its marks."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def _yaml_block(name: str, field: FieldInfo) -> str:
    facts = meta(field)
    span = range_text(field)
    text = f"{facts['label']}: {field.description}" + (f" [{span}]" if span else "")
    comment = textwrap.fill(text, 98, initial_indent="# ", subsequent_indent="# ")
    if facts["unset"]:
        return f"{comment}\n{name}:  # empty: {default_text(field, field.default)}\n"
    beside = f"  # published weights: {facts['published']}" if facts["published"] else ""
    return f"{comment}\n{name}: {_as_yaml(field.default)}{beside}\n"


def _row(name: str, field: FieldInfo) -> str:
    facts = meta(field)
    option = f"`{option_name(name)}`" if value_type(field) is not bool else _switch(name)
    default = default_text(field, field.default)
    if facts["published"]:
        default += f" (published weights: {facts['published']})"
    cells = [f"`{name}`", option, range_text(field), default, str(field.description)]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _switch(name: str) -> str:
    return f"`{option_name(name)}`, `{option_name('no_' + name)}`"


def _as_yaml(value: object) -> str:
    return yaml.safe_dump(value).split("\n")[0]


if __name__ == "__main__":
    settings_kind = next(iter(MODELS.values())).settings
    DEFAULTS_FILE.write_text(defaults_yaml(settings_kind), encoding="utf-8")
    readme_text = README.read_text(encoding="utf-8")
    README.write_text(with_table(readme_text, readme_table(settings_kind)), encoding="utf-8")
