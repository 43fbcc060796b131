"""Pieces of an HTML page; whatever is no `Html` is escaped.

So nothing that comes from data or settings is ever read as a tag.
"""

import base64
import html
import math
from collections.abc import Iterable, Sequence

from trm_jax.visualization import plots

_EMPTY = frozenset(("img", "source", "meta"))  # elements without an end

# Refused, should anything in the page ever ask for it: scripts, the network.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

_STYLE = """
:root { color-scheme: light dark;
  --ground: #fcfcfb; --card: #ffffff; --ink: #1b1b1b; --soft: #5c5c5c;
  --line: #dcdcd8; --accent: #1558b0; --warn: #8a4b00; --warn-ground: #fff3dc; }
@media (prefers-color-scheme: dark) { :root {
  --ground: #161719; --card: #1f2124; --ink: #e8e8e6; --soft: #a9abb0;
  --line: #3a3d42; --accent: #8ab8f5; --warn: #ffcf8a;
  --warn-ground: #3a2a10; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
header, main, footer { max-width: 76rem; margin: 0 auto; padding: 0 1rem; }
header { padding-top: 2rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem;
  overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .6rem; padding-top: .8rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; }
p { margin: .4rem 0 .8rem; max-width: 46rem; overflow-wrap: anywhere; }
.soft, figcaption, caption { color: var(--soft); font-size: .9rem; }
a { color: var(--accent); }
nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: .3rem 1.2rem;
  padding: 0; margin: 1rem 0 0; }
.tiles { display: flex; flex-wrap: wrap; gap: .7rem; margin: 1.2rem 0; }
.tile { background: var(--card); border: 1px solid var(--line);
  border-radius: .5rem; padding: .6rem 1rem; min-width: 8.5rem; }
.tile b { display: block; font-size: 1.45rem; line-height: 1.3; }
.warning { background: var(--warn-ground); color: var(--warn);
  border-left: 4px solid var(--warn); padding: .6rem .9rem;
  border-radius: .3rem; max-width: none; }
.pair { display: grid; gap: 1rem 2rem; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr)); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .3rem; }
th, td { padding: .25rem .8rem .25rem 0; text-align: right;
  border-bottom: 1px solid var(--line); vertical-align: top; }
th:first-child, td:first-child { text-align: left; }
th { font-weight: 600; }
td { white-space: nowrap; }
td small { display: block; color: var(--soft); }
table.plain td, table.plain th { text-align: left; white-space: normal;
  overflow-wrap: anywhere; min-width: 7.5rem; }
figure { margin: 0; }
figure.chart { background: var(--card); border: 1px solid var(--line);
  border-radius: .5rem; padding: .7rem; }
figure.chart img { width: 100%; max-width: 34rem; height: auto; display: block;
  margin: 0 auto; }
.paper { background: #ffffff; border-radius: .4rem; padding: .5rem;
  border: 1px solid var(--line); }
.paper img { max-width: 100%; height: auto; display: block; }
.puzzle { background: var(--card); border: 1px solid var(--line);
  border-radius: .5rem; padding: .7rem .9rem 1rem; margin: .8rem 0; }
.puzzle h4 { margin: 0 0 .5rem; font-size: 1rem; overflow-wrap: anywhere; }
.grids { display: flex; flex-wrap: wrap; gap: .9rem; align-items: flex-start;
  margin: .5rem 0; }
.grids figure { max-width: 100%; }
.grids figcaption { color: var(--ink); display: flex; flex-wrap: wrap;
  justify-content: space-between; gap: 0 .6rem; }
.grids .paper { padding: .3rem; border: 0; }
@media (max-width: 34rem) { .grids figure { width: calc(50% - .45rem); } }
progress, .no-bar { width: 100%; height: .5rem; display: block;
  margin: .1rem 0 .35rem; accent-color: var(--accent); }
.film { display: inline-block; max-width: 100%; }
.legend { list-style: none; padding: 0; display: flex; flex-wrap: wrap;
  gap: .4rem 1.4rem; font-size: .9rem; }
.legend li { display: flex; gap: .5rem; align-items: center; }
details { margin: 1rem 0; }
summary { cursor: pointer; font-weight: 600; }
footer { margin-top: 3rem; padding-bottom: 2rem; }
@media print { details > * { display: block; } nav { display: none; } }
"""


class Html(str):
  """Text of which the tags are meant."""

  __slots__ = ()


def element(tag: str, /, *content: str, **attributes: str) -> Html:
  """Writes an element.

  Args:
    tag: its name.
    *content: inside it; escaped unless it is `Html`.
    **attributes: escaped, with quotation marks around; `class_` is `class` and
      other underscores are hyphens.
  """
  said = "".join(
    f' {key.rstrip("_").replace("_", "-")}="{html.escape(value)}"'
    for key, value in attributes.items()
  )
  if tag in _EMPTY:
    return Html(f"<{tag}{said}>")
  return Html(f"<{tag}{said}>{join(content)}</{tag}>")


def join(parts: Iterable[str]) -> Html:
  """Puts parts one after another; escaped unless they are `Html`."""
  return Html(
    "\n".join(
      part if isinstance(part, Html) else html.escape(part) for part in parts
    )
  )


def section(title: str, *content: str) -> tuple[str, Html]:
  """Returns a section's title and the section, which has it as its heading."""
  name = anchor(title)
  heading = element("h2", title, id=name)
  return title, element("section", heading, *content, aria_labelledby=name)


def anchor(title: str) -> str:
  """Returns what a link to a section ends with."""
  return "-".join("".join(c if c.isalnum() else " " for c in title).split())


def table(
  heads: Sequence[str],
  rows: Iterable[Sequence[str]],
  *,
  caption: str = "",
  class_: str = "numbers",
) -> Html:
  """Writes a table; the first cell of a row is the row's head."""
  body = [
    element(
      "tr",
      element("th", first, scope="row"),
      *(element("td", cell) for cell in rest),
    )
    for first, *rest in rows
  ]
  head = element(
    "thead", element("tr", *(element("th", h, scope="col") for h in heads))
  )
  parts = [element("caption", caption)] if caption else []
  parts += [head] if any(heads) else []
  content = element("table", *parts, element("tbody", *body), class_=class_)
  return element("div", content, class_="scroll")


def data_uri(content: bytes, kind: str) -> str:
  """Returns an address that is itself the file, e.g. of kind 'image/png'."""
  return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def chart(draw, alt: str, caption: str) -> Html:
  """Shows a chart in the light's or the dark's colours.

  Args:
    draw: makes an SVG for a `plots.Theme`.
    alt: what it shows, for those who cannot see it.
    caption: below it.
  """
  light, dark = (
    data_uri(draw(theme), "image/svg+xml")
    for theme in (plots.LIGHT, plots.DARK)
  )
  picture = element(
    "picture",
    element("source", srcset=dark, media="(prefers-color-scheme: dark)"),
    element("img", src=light, alt=alt, width="422", height="278"),
  )
  return element(
    "figure", picture, element("figcaption", caption), class_="chart"
  )


def percent(share: float, digits: int = 2) -> str:
  """Returns a share in percent, or that it is not known."""
  return f"{share:.{digits}%}" if math.isfinite(share) else "not known"


def number(value: float, digits: int) -> str:
  """Returns a number, or that it is not known."""
  return f"{value:,.{digits}f}" if math.isfinite(value) else "not known"


def page(title: str, header: Html, sections: Sequence[tuple[str, Html]]) -> str:
  """Writes the page: one file that needs no other.

  Args:
    title: of the window.
    header: what comes first.
    sections: of `section`; linked to at the top.
  """
  links = element(
    "ul",
    *(
      element("li", element("a", name, href=f"#{anchor(name)}"))
      for name, _ in sections
    ),
  )
  head = element(
    "head",
    element("meta", charset="utf-8"),
    element(
      "meta", name="viewport", content="width=device-width, initial-scale=1"
    ),
    Html(
      '<meta http-equiv="Content-Security-Policy"'
      f' content="{html.escape(_POLICY)}">'
    ),
    element("title", title),
    Html(f"<style>{_STYLE}</style>"),
  )
  body = element(
    "body",
    element("header", header, element("nav", links, aria_label="Contents")),
    element("main", *(content for _, content in sections)),
  )
  return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"
