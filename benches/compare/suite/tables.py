"""Tables and figures as the report writes them."""

import statistics

from .rows import interval


def table(title, head, lines):
    text = f"{title}\n\n| {' | '.join(head)} |\n|{'---|' * len(head)}\n"
    return text + "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def ratio(ours, theirs):
    """Interval of the per-round ratios."""
    return interval([a / b for a, b in zip(ours, theirs) if b])


def show(found, digits=2):
    if not found:
        return "–"
    return f"{found['median']:.{digits}f} [{found['low']:.{digits}f}, {found['high']:.{digits}f}]"


def number(values, digits=0):
    return f"{statistics.median(values):,.{digits}f}" if values else "–"


def verdict(verdicts, what, budget, found, kept):
    verdicts.append([what, budget, found, "yes" if kept else "**no**"])
