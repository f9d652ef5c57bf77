"""Texts put together as sentences. What is put in may be of others (a server's refusal, a reason)
and end in a mark of its own."""

_MARKS = (".", "?", "!", "…")


def finished(text: str) -> str:
    """With one mark at its end: its own, else a full stop."""
    return text if text.endswith(_MARKS) else f"{text}."
