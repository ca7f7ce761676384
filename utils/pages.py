"""HTML pages from jinja2 templates. They extend utils/templates/base.html, and open from the disk without a server."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

BASE = Path(__file__).parent / "templates"


def render_page(template: Path, **values: Any) -> str:
    """Fill a template; strings are escaped unless they are `markupsafe.Markup`.

    Args:
        template: an HTML file, which finds base.html and the files in its own folder by their names.
        values: its variables.

    Raises:
        jinja2.UndefinedError: if the template uses a variable that is not given.
    """
    environment = Environment(
        loader=FileSystemLoader([template.parent, BASE]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template.name).render(values)
