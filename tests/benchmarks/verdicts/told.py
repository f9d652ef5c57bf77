"""What a part found, among all that it prints: the lines that stand in the README."""

SIGN = "→ "


def result(text: str) -> None:
    print(f"{SIGN}{text}", flush=True)
