"""Numbers as people read them."""

from __future__ import annotations


def format_size(count: float) -> str:
    """Bytes in the unit that leaves few digits: ``812 bytes``, ``3.4 MB``, ``27 GB``; a megabyte is 10^6 bytes."""
    if count < 1000:
        return f"{count:.0f} byte{'' if round(count) == 1 else 's'}"
    for unit in ("kB", "MB", "GB", "TB"):
        count /= 1000
        if count < 999.5 or unit == "TB":
            break
    return f"{count:.1f} {unit}" if count < 9.95 else f"{count:.0f} {unit}"


def format_duration(seconds: float) -> str:
    """``12 s``, ``4 min 05 s``, ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def format_rate(rate: float) -> str:
    """A speed in at least three digits, never as a power of ten: ``0.495``, ``19.4``, ``1,730``."""
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def counted(number: int, thing: str) -> str:
    """``1 row``, ``21,000 rows``: of things whose plural is an s."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
