"""Find a file whose name has the same letters in another Unicode form.

A letter with an accent can be one code point (NFC), or a letter and an accent (NFD). Tables and
file systems use different forms: macOS and some archives write NFD, and most editors write NFC.
"""

import os
import unicodedata

FORMS = ("NFC", "NFD")


def file_in_other_form(path: str | os.PathLike) -> str:
    """Return the existing file with the same letters in another form; empty if there is none.

    Folders in the path may also be in another form. For an existing path the result is empty.
    """
    name = os.fspath(path)
    if name.isascii() or os.path.exists(name):
        return ""
    found = os.sep if os.path.isabs(name) else ""
    for part in name.split(os.sep):
        if not part:
            continue
        if os.path.exists(os.path.join(found, part)):
            found = os.path.join(found, part)
        elif other := _other_form(found, part):
            found = os.path.join(found, other)
        else:
            return ""
    return found


def _other_form(folder: str, name: str) -> str:
    for form in FORMS:  # avoid listing the whole folder, which may hold millions of files
        other = unicodedata.normalize(form, name)
        if os.path.exists(os.path.join(folder, other)):
            return other
    wanted = unicodedata.normalize("NFC", name)
    try:
        with os.scandir(folder or os.curdir) as entries:
            return next((e.name for e in entries if _nfc(e.name) == wanted), "")
    except OSError:
        return ""


def _nfc(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def explain_missing(path: str | os.PathLike) -> str:
    """Return the path of a missing file for a message, with the file that exists instead, if any.

    The two names look alike, so the other name has escapes for letters beyond ASCII.
    """
    other = file_in_other_form(path)
    if not other:
        return os.fspath(path)
    form = next((form for form in FORMS if unicodedata.is_normalized(form, other)), "mixed")
    return (
        f"{path} (there is {other!a}, the same letters in the Unicode form {form}: rename the "
        "file, or write its name in that form)"
    )
