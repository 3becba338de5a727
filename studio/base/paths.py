"""Where the project's own files are."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OUTPUT_DIR = ROOT / "output"
ASSETS_DIR = ROOT / "assets"
STATIC_DIR = ROOT / "static"
DEFAULTS_FILE = ROOT / "defaults.yaml"
STYLES_FILE = ROOT / "styles.yaml"
README = ROOT / "README.md"
