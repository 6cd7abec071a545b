"""URLs that a space file names: with environment variables put in, and without secrets where they are told of."""

import re
from collections.abc import Iterable
from functools import partial
from urllib.parse import quote, quote_plus

from autoprune.config.paths import put_in_variables
from autoprune.errors import StudyError


def expand_url(where: str, name: str) -> str:
    """Put variables in; those of the user, the password and the settings after ``?`` may hold any sign, unquoted.

    Args:
        where: The setting that names the URL, for the error.

    Raises:
        StudyError: If a variable is not set.
    """
    parts = re.fullmatch(r"([\w+.-]+://[^/@]*@)?([^?]*)(.*)", name, re.DOTALL)
    assert parts is not None
    login, place, settings = parts.groups(default="")
    inside = partial(quote, safe="")
    try:
        return put_in_variables(login, inside) + put_in_variables(place) + put_in_variables(settings, inside)
    except KeyError as error:
        raise StudyError(
            f"{where}: the environment variable {error.args[0]} is not set. Set it, or mend the URL."
        ) from None


def hide(secrets: Iterable[str | None], text: str) -> str:
    """A text with ``***`` for each secret, however that is quoted in it."""
    for secret in filter(None, secrets):
        for form in (secret, quote(secret, safe=""), quote(secret, safe=" +"), quote_plus(secret)):
            text = text.replace(form, "***")
    return text
