"""Opens a report in a real browser without a window, and looks at it.

  python -m tests.in_browser REPORT.html --browser=/usr/bin/chromium --out=SHOTS

Writes pictures of the page (wide, narrow, dark) into the folder. Fails unless
all images are decoded, the page fits into its window's width, and the console
has nothing to tell. No test of pytest: few machines have a browser.
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

# Run in the browser on a copy of the page, when all is loaded.
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
    wanted: root.scrollWidth,
    height: root.scrollHeight,
    headings: [...document.querySelectorAll("h1, h2, h3")]
      .map(h => h.tagName + " " + h.textContent),
    without_alt: images.filter(i => !i.hasAttribute("alt")).length,
  };
  parent.postMessage(JSON.stringify(found), "*");
});
"""
# Windows have a least width: a frame stands for that of a phone.
_FRAME = """<!DOCTYPE html><body style="margin:0">
<iframe src="{address}" width="{width}" height="{height}" style="border:0">
</iframe><script>addEventListener("message", event => {{
  const told = document.createElement("pre");
  told.id = "probe";
  told.textContent = event.data;
  document.body.append(told);
}});</script></body>
"""
_SIZES = {"wide": 1280, "narrow": 390}
_HIGHEST = 16000  # pixels of a picture
_POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
# What the browser says of itself, not of the page.
_CONSOLE = re.compile(r"CONSOLE[:(].*")


def main() -> None:
  """Looks at the page; exits with 1 if something is wrong."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("report", type=pathlib.Path)
  parser.add_argument("--browser", default="chromium")
  parser.add_argument("--out", type=pathlib.Path, required=True)
  arguments = parser.parse_args()
  if not arguments.report.is_file():
    parser.error(f"there is no file {arguments.report}")
  arguments.out.mkdir(parents=True, exist_ok=True)
  faults = list(_look(arguments.report, arguments.browser, arguments.out))
  print("\n".join(faults) or "nothing is wrong")
  sys.exit(bool(faults))


def _look(
  report: pathlib.Path, browser: str, out: pathlib.Path
) -> Iterator[str]:
  """Yields what is wrong with the page."""
  # The page forbids scripts: its copy allows the one that probes it.
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
      if found["wanted"] > found["width"]:
        yield f"{size}: wants {found['wanted']} pixels of width"
      yield from (f"{size}: console: {line}" for line in console)
      # Frames have scroll bars, unless they are as high as the page.
      height = min(found["height"], _HIGHEST)
      frame = _framed(folder, report, width, height)
      for scheme in ("light", "dark"):
        path = out / f"{size}_{scheme}.png"
        yield from _shoot(browser, frame, path, width, height, scheme)
    print("\n".join(found["headings"]))


def _framed(folder, page, width, height) -> pathlib.Path:
  """Writes a page that shows another in a frame of this size."""
  frame = folder / "frame.html"
  address = page.resolve().as_uri()
  frame.write_text(_FRAME.format(address=address, width=width, height=height))
  return frame


def _shoot(browser, frame, path, width, height, scheme) -> list[str]:
  """Takes a picture of the page as it is; returns what is wrong."""
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
    return [f"no picture {path}"]
  return [f"{path.name}: console: {line}" for line in console]


def _probe(browser, frame) -> tuple[dict, list[str]]:
  """Returns what the probe found, and what the console tells."""
  dom, console = _run(browser, frame, "--dump-dom")
  told = re.search(r'<pre id="probe">(.*?)</pre>', dom, re.DOTALL)
  if not told:
    sys.exit("the probe has not run: is the page cut off?")
  return json.loads(html.unescape(told[1])), console


def _run(browser, page, *options) -> tuple[str, list[str]]:
  """Returns what the browser prints, and the lines of its console."""
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
