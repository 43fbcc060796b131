"""Checks a report in a headless browser, and takes screenshots.

  python -m tests.in_browser REPORT.html --browser=/usr/bin/chromium --out=SHOTS

Writes screenshots (wide and narrow, light and dark) into the folder. Fails
unless all images are decoded, nothing else is loaded, the page fits into the
width of its window, and the console is silent. Not a pytest test: few machines
have a browser.
"""

import argparse
import html
import json
import pathlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator

# Runs in the browser on a copy of the page, after everything is loaded.
_PROBE = """
addEventListener("load", () => {
  const images = [...document.images];
  const broken = images.filter(i => !i.naturalWidth || !i.naturalHeight);
  const empty = images.filter(i => !broken.includes(i)).filter(image => {
    const canvas = document.createElement("canvas");
    canvas.width = image.naturalWidth;
    canvas.height = image.naturalHeight;
    const pen = canvas.getContext("2d");
    pen.drawImage(image, 0, 0);
    const pixels = pen.getImageData(0, 0, canvas.width, canvas.height).data;
    return !pixels.some(value => value);
  });
  const root = document.documentElement;
  const loaded = performance.getEntriesByType("resource")
    .map(entry => entry.name).filter(name => !name.startsWith("data:"));
  const found = {
    images: images.length,
    broken: broken.map(i => i.alt),
    empty: empty.map(i => i.alt),
    loaded,
    width: root.clientWidth,
    needed: root.scrollWidth,
    height: root.scrollHeight,
    headings: [...document.querySelectorAll("h1, h2, h3")]
      .map(h => h.tagName + " " + h.textContent),
    without_alt: images.filter(i => !i.hasAttribute("alt")).length,
  };
  parent.postMessage(JSON.stringify(found), "*");
});
"""
# Windows have a minimum width; a frame can be as narrow as a phone.
_FRAME = """<!DOCTYPE html><body style="margin:0">
<iframe src="{address}" width="{width}" height="{height}" style="border:0">
</iframe><script>addEventListener("message", event => {{
  const result = document.createElement("pre");
  result.id = "probe";
  result.textContent = event.data;
  document.body.append(result);
}});</script></body>
"""
_SIZES = {"wide": 1280, "narrow": 390}
_MAX_HEIGHT = 16000  # pixels of a screenshot
_POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
# Messages of the page, not of the browser.
_CONSOLE = re.compile(r"CONSOLE[:(].*")


def main() -> None:
  """Checks the page; exits with 1 if there is a fault."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("report", type=pathlib.Path)
  parser.add_argument("--browser", default="chromium")
  parser.add_argument("--out", type=pathlib.Path, required=True)
  arguments = parser.parse_args()
  if not arguments.report.is_file():
    parser.error(f"no such file: {arguments.report}")
  arguments.out.mkdir(parents=True, exist_ok=True)
  faults = list(_check(arguments.report, arguments.browser, arguments.out))
  print("\n".join(faults) or "no faults")
  sys.exit(bool(faults))


def _check(
  report: pathlib.Path, browser: str, out: pathlib.Path
) -> Iterator[str]:
  """Yields the faults of the page."""
  # The page forbids scripts; a copy allows the probe.
  text = _POLICY.sub("", report.read_text(), count=1)
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    copy = folder / "probed.html"
    copy.write_text(
      text.replace("</body>", f"<script>{_PROBE}</script></body>")
    )
    for size, width in _SIZES.items():
      frame = _framed(folder, copy, width, 1000)
      found, console = _probe(browser, frame)
      print(
        f"{size}: {found['images']} images, {found['width']} x"
        f" {found['height']} pixels"
      )
      yield from (
        f"{size}: {fault}: {found[fault]}"
        for fault in ("broken", "empty", "loaded", "without_alt")
        if found[fault]
      )
      if found["needed"] > found["width"]:
        yield f"{size}: needs a width of {found['needed']} pixels"
      yield from (f"{size}: console: {line}" for line in console)
      # A frame as high as the page has no scroll bars.
      height = min(found["height"], _MAX_HEIGHT)
      frame = _framed(folder, report, width, height)
      for scheme in ("light", "dark"):
        path = out / f"{size}_{scheme}.png"
        yield from _shoot(browser, frame, path, width, height, scheme)
    print("\n".join(found["headings"]))


def _framed(folder, page, width, height) -> pathlib.Path:
  """Writes a page that shows another one in a frame of this size."""
  frame = folder / "frame.html"
  address = page.resolve().as_uri()
  frame.write_text(_FRAME.format(address=address, width=width, height=height))
  return frame


def _shoot(browser, frame, path, width, height, scheme) -> list[str]:
  """Takes a screenshot of the unchanged page; returns the faults."""
  path.unlink(missing_ok=True)
  _, console = _run(
    browser,
    frame,
    f"--screenshot={path.resolve()}",
    "--hide-scrollbars",
    f"--window-size={max(width, 500)},{height + 100}",
    f"--blink-settings=preferredColorScheme={int(scheme == 'light')}",
  )
  if not path.exists():
    return [f"no screenshot {path}"]
  return [f"{path.name}: console: {line}" for line in console]


def _probe(browser, frame) -> tuple[dict, list[str]]:
  """Returns what the probe found, and the lines of the console."""
  dom, console = _run(browser, frame, "--dump-dom")
  result = re.search(r'<pre id="probe">(.*?)</pre>', dom, re.DOTALL)
  if not result:
    sys.exit("the probe did not run: is the page truncated?")
  return json.loads(html.unescape(result[1])), console


def _run(browser, page, *options) -> tuple[str, list[str]]:
  """Returns the output of the browser, and the lines of the console."""
  with tempfile.TemporaryDirectory() as profile:
    ended = subprocess.run(
      [
        browser,
        "--headless",
        "--no-sandbox",  # the page is ours, and the user may be root
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--enable-logging=stderr",
        f"--user-data-dir={profile}",
        "--virtual-time-budget=10000",
        *options,
        page.resolve().as_uri(),
      ],
      capture_output=True,
      text=True,
      timeout=300,
      check=True,
    )
  return ended.stdout, _CONSOLE.findall(ended.stderr)


if __name__ == "__main__":
  main()
