"""What goes wrong by what a user gave, as opposed to by what this code does."""


class UserError(ValueError):
  """A mistake that the user can mend; the message says how.

  Commands print the message alone. A ValueError of any other kind is a fault of a
  program and keeps its traceback. Files that are missing or cannot be written are
  `OSError`s, whose messages commands print, too.
  """
