"""The one exception whose text is meant for the person at the terminal."""


class UserError(Exception):
  """Something the user can put right; the text is one line that says how.

  `main` prints it as `error: <text>` and exits with status 1, without a
  traceback. Raise it for missing files, bad rows, misspelt or contradicting
  settings; never for a mistake of the program itself.
  """
