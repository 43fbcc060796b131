"""Parses the text after the colon in --config=experiments/NAME.py:..."""


def parse(text: str, known: tuple[str, ...]) -> frozenset[str]:
  """Returns the words of a comma-separated argument.

  Args:
    text: e.g. "attention,smoke".
    known: valid words.

  Raises:
    ValueError: a word is not known.
  """
  words = [word for word in text.split(",") if word]
  for word in words:
    if word not in known:
      raise ValueError(
        f"there is no variant {word!r} of this experiment; known:"
        f" {', '.join(known)}"
      )
  return frozenset(words)
