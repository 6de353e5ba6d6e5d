"""What goes wrong with a user's input, said in one sentence."""


class HelloMemeError(ValueError):
    """Bad input. The message is one sentence for the user: what is wrong and what to do."""


class NoFaceError(HelloMemeError):
    """No face was found in a picture that needs one."""


class NoMemoryError(HelloMemeError):
    """The memory of the GPU does not suffice."""
