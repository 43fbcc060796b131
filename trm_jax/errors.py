"""Errors whose text is meant for the person at the terminal."""


class UserError(Exception):
  """Something the user can put right; the text is one line that says how.

  `main` prints it as `error: <text>` and exits with status 1, without a
  traceback. Raise it for missing files, bad rows, misspelt or contradicting
  settings; never for a mistake of the program itself.
  """


def first_line(error: BaseException) -> str:
  """Returns the first line of what a library says went wrong."""
  text = str(error).strip() or type(error).__name__
  return text.splitlines()[0][:200]
