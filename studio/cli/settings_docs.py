"""The declarations of settings, written out: `defaults.yaml` and the tables in the README.

`make docs` writes both again; a test keeps them up to date.
"""

import math
import textwrap

import yaml
from pydantic.fields import FieldInfo

from studio.base.paths import DEFAULTS_FILE, README
from studio.engines import registry
from studio.settings.declare import default_text, meta, option_name, range_text, value_type
from studio.settings.run_settings import RunSettings

BEGIN, END = "<!-- settings:begin -->", "<!-- settings:end -->"
INTRODUCTION = """\
# The values that the form and the command line start with, in a section for each engine. A key left
# empty counts as not set. Edit the values to your taste. The shipped ones suit the bundled weights
# on a CPU; values for published weights on a GPU stand beside them. `make docs` writes this file
# from the declarations of the settings.
"""


def defaults_yaml() -> str:
    """`defaults.yaml` as it is shipped."""
    return "\n".join([INTRODUCTION, *map(_section, _engines())])


def readme_tables() -> str:
    """A markdown table of all settings for each engine, under the engine's name."""
    tables = (f"### {name}\n\n{_table(registry.get(name).settings)}" for name in _engines())
    return "\n\n".join(tables)


def with_tables(readme: str, tables: str) -> str:
    """The README with the tables between their marks."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{tables}\n{END}{after}"


def main() -> None:
    """Write both files."""
    DEFAULTS_FILE.write_text(defaults_yaml(), encoding="utf-8")
    readme = README.read_text(encoding="utf-8")
    README.write_text(with_tables(readme, readme_tables()), encoding="utf-8")


def _engines() -> list[str]:
    """Those that can be imported."""
    return [name for name in registry.names() if registry.find(name)]


def _section(name: str) -> str:
    fields = registry.get(name).settings.model_fields
    blocks = "\n".join(_yaml_block(*setting) for setting in fields.items())
    return f"{name}:\n{textwrap.indent(blocks, '  ')}"


def _yaml_block(name: str, field: FieldInfo) -> str:
    facts = meta(field)
    span = range_text(field)
    text = f"{facts['label']}: {field.description}" + (f" [{span}]" if span else "")
    comment = textwrap.fill(text, 96, initial_indent="# ", subsequent_indent="# ")
    if facts["unset"]:
        return f"{comment}\n{name}:  # empty: {default_text(field, field.default)}\n"
    beside = f"  # published weights: {facts['published']}" if facts["published"] else ""
    return f"{comment}\n{name}: {_as_yaml(field.default)}{beside}\n"


def _table(kind: type[RunSettings]) -> str:
    rows = [_row(name, field) for name, field in kind.model_fields.items()]
    head = ["| Setting | Option | Range | Default | What it does |", "|---|---|---|---|---|"]
    return "\n".join([*head, *rows])


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
    return yaml.safe_dump(value, width=math.inf).split("\n")[0]


if __name__ == "__main__":
    main()
