"""How a length of time is written."""


def duration(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3 h 20 min``, ``5 days 2 h``: as exact as an estimate can be."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} days {hours % 24} h"
