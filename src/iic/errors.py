"""The one exception that is shown to a user as a sentence instead of a traceback."""


class UserError(ValueError):
    """Something the user can put right: the message names the thing and the way out."""
