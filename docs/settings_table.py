"""Writes the README's table of settings from settings.py: `make readme`."""

from pathlib import Path

from pydantic.fields import FieldInfo

from settings import VQGANCLIPSettings, meta, range_text, read_defaults, value_type

README = Path(__file__).resolve().parents[1] / "README.md"
BEGIN, END = "<!-- settings:begin -->\n", "<!-- settings:end -->"
HEAD = "| On the page | Command line | Default | Range | What it does |\n|---|---|---|---|---|\n"


def table() -> str:
    """The settings as a Markdown table."""
    return HEAD + "".join(_row(name, field) for name, field in VQGANCLIPSettings.model_fields.items())


def with_table(readme: str) -> str:
    """The README's text with the table between its markers as it should be."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{table()}{END}{after}"


def _row(name: str, field: FieldInfo) -> str:
    cells = (
        meta(field)["label"],
        _option(name, field),
        _default(name, field),
        range_text(field),
        field.description or "",
    )
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |\n"


def _option(name: str, field: FieldInfo) -> str:
    if name == "text_input":
        return "`PROMPT`"
    option = "--" + name.lower().replace("_", "-")
    if value_type(field) is bool:
        return f"`{option}`, `{option.replace('--', '--no-', 1)}`"
    return f"`{option}`"


def _default(name: str, field: FieldInfo) -> str:
    value = read_defaults(VQGANCLIPSettings).get(name)
    if value is None and meta(field)["unset"]:
        return meta(field)["unset"]
    value = field.get_default(call_default_factory=True) if value is None else value
    text = {True: "on", False: "off"}[value] if isinstance(value, bool) else f"{value}"
    published = meta(field)["published"]
    return f"{text} (published weights: {published})" if published is not None else text


if __name__ == "__main__":
    README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")
