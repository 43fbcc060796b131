"""Parses an HTML page, and checks that it is self-contained and accessible."""

import base64
import html.parser
import io
import itertools
import re
import xml.etree.ElementTree as ElementTree

from PIL import Image


class Page(html.parser.HTMLParser):
  """What a browser finds in a page."""

  def __init__(self, text):
    super().__init__()
    self.tags: list[tuple[str, dict]] = []
    self.open: list[str] = []
    self.words: list[str] = []
    self.titles: list[str] = []
    self.feed(text)
    assert not self.open  # every element is closed
    self.text = " ".join(" ".join(self.words).split())
    self._check()

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    if tag not in ("meta", "img", "source"):
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    if self.open[-1:] == ["h2"]:
      self.titles.append(data)
    if self.open[-1:] != ["style"]:
      self.words.append(data)

  def all(self, tag):
    return [attributes for name, attributes in self.tags if name == tag]

  def alts(self):
    return [image["alt"] for image in self.all("img")]

  def _check(self):
    names = {tag for tag, _ in self.tags}
    assert not names & {"script", "link", "iframe", "object", "form", "base"}
    (policy,) = (
      meta["content"]
      for meta in self.all("meta")
      if meta.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy == (
      "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    )
    ids = [a["id"] for _, a in self.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert [a["href"] for a in self.all("a")] == [f"#{id_}" for id_ in ids]
    for _, attributes in self.tags:
      assert not any(name.startswith("on") for name in attributes)
      for name in {"src", "srcset"} & set(attributes):
        _check_image(attributes[name])
    assert all("alt" in image for image in self.all("img"))
    levels = [int(t[1]) for t, _ in self.tags if re.fullmatch("h[1-6]", t)]
    assert levels.count(1) == levels[0] == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels))


def _check_image(address):
  media_type, _, content = address.partition(";base64,")
  data = base64.b64decode(content, validate=True)
  if media_type == "data:image/svg+xml":
    assert ElementTree.fromstring(data).tag.endswith("svg")
    return
  with Image.open(io.BytesIO(data)) as image:
    image.load()
    assert media_type == f"data:image/{image.format.lower()}"
