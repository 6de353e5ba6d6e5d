"""Errors of a user's input. Each message is one sentence for the user."""


class HelloMemeError(ValueError):
    """Bad input. The message says what is wrong and what to do."""


class NoFaceError(HelloMemeError):
    """No face was found in a picture or clip."""


class NoMemoryError(HelloMemeError):
    """Not enough GPU memory."""
