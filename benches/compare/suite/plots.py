"""Bars as SVG, one picture for each kind of row: lengths are to scale from zero, brackets are the intervals."""

import html
import statistics

from .rows import interval

WIDTH, LABEL, VALUE = 860, 250, 120
BAR, GAP, HEAD = 13, 9, 58
# One colour per server, in the order of the legend.
COLOURS = {"weir": "#0b6e99", "nginx": "#5b8c3a", "static-web-server": "#a8632d", "xiu": "#7a4fa3", "loop": "#9aa0a6"}
# Servers whose bars stand in one picture; of each family the best variant.
LOOP = ("write loop", "bare loop", "loop: ")


def of(rows):
    """{kind: (title, SVG)} of what was measured."""
    makers = {"range": ranges, "cold": cold, "beside": beside, "seek": seeks, "live": live, "segments": segments,
              "upload": uploads, "start": start, "start-cases": start_cases}
    drawn = {}
    for kind, make in makers.items():
        found = [row for row in rows if row["kind"] == kind]
        title, unit, groups, limit = make(found) if found else ("", "", [], None)
        if groups:
            drawn[kind] = (title, bars(title, unit, groups, limit))
    return drawn


def family(label):
    """Which colour a server has."""
    if any(label.startswith(name) for name in LOOP):
        return "loop"
    return next((name for name in COLOURS if label.startswith(name)), "loop")


def bars(title, unit, groups, limit=None):
    """groups: [(label, [(server, {median, low, high})])]. What is longer than `limit` is cut, its value stands there."""
    groups = [(label, [(name, value) for name, value in servers if value]) for label, servers in groups]
    largest = max((value["high"] for _, servers in groups for _, value in servers), default=0) or 1
    scale = (WIDTH - LABEL - VALUE) / min(largest, limit or largest)
    parts, y, used = [], HEAD, []
    for label, servers in groups:
        parts.append(text(LABEL - 8, y + BAR * max(1, len(servers)) / 2 + 4, label, "end"))
        for name, value in servers:
            used.append(family(name))
            parts += bar(y, name, value, scale, largest if limit is None else limit)
            y += BAR
        y += GAP
    legend, x = [], LABEL
    for name in dict.fromkeys(name for name in COLOURS if name in used):
        legend.append(f'<rect x="{x}" y="30" width="10" height="10" fill="{COLOURS[name]}"/>')
        shown = "bare loop" if name == "loop" else name
        legend.append(text(x + 14, 39, shown))
        x += 30 + 7 * len(shown)
    head = (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y + 8}" viewBox="0 0 {WIDTH} {y + 8}" '
            f'font-family="sans-serif" font-size="11"><title>{html.escape(title)}</title>'
            f'<rect width="100%" height="100%" fill="#fff"/>')
    axis = f'<line x1="{LABEL}" y1="{HEAD - 4}" x2="{LABEL}" y2="{y}" stroke="#444"/>'
    caption = f'<text x="{LABEL}" y="18" font-size="13" font-weight="bold">{html.escape(f"{title}, {unit}")}</text>'
    return "\n".join([head, caption, *legend, axis, *parts, "</svg>\n"])


def bar(y, name, value, scale, longest):
    cut = value["median"] > longest
    width = min(value["median"], longest) * scale
    hint = html.escape(f"{name}: {value['median']:,.4g}")
    shape = (f'<rect x="{LABEL}" y="{y + 1}" width="{width:.1f}" height="{BAR - 2}" fill="{COLOURS[family(name)]}">'
             f'<title>{hint}</title></rect>')
    low, high = (LABEL + min(value[key], longest) * scale for key in ("low", "high"))
    middle = y + BAR / 2
    bracket = f'<path d="M{low:.1f} {middle - 3}v6M{low:.1f} {middle}H{high:.1f}M{high:.1f} {middle - 3}v6" stroke="#222"/>'
    shown = f"{value['median']:,.0f}" if value["median"] >= 100 else f"{value['median']:.3g}"
    at = LABEL + width if cut else max(LABEL + width, high)
    return [shape, *([] if cut else [bracket]), text(at + 5, y + BAR - 3, f"{shown} →" if cut else shown)]


def text(x, y, words, anchor="start"):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#222">{html.escape(words)}</text>'


def best(servers, figure, families=None, largest=False):
    """[(label, interval)] of the best member of each family for a figure."""
    chosen = {}
    for label, figures in servers.items():
        values = figures.get(figure)
        name = families[label] if families else label.split(":")[0]
        if not values:
            continue
        score = statistics.median(values) * (-1 if largest else 1)
        if name not in chosen or score < chosen[name][0]:
            chosen[name] = (score, label, values)
    return [(name, interval(values)) for name, (_, _label, values) in chosen.items()]


def ranges(rows):
    groups = []
    for row in rows:
        found = dict(best(row["servers"], "cpu_ms_per_gb", row["families"]))
        found.pop("sendfile loop", None)
        loop = found.get("write loop")
        if loop:
            per = {name: {key: number / loop["median"] for key, number in value.items()} for name, value in found.items()}
            groups.append((row["row"].removeprefix("range-"), list(per.items())))
    return "Hot ranges: server CPU per byte", "as multiples of the bare write loop's", groups, 4.0


def cold(rows):
    groups = []
    for name, cases in rows[0]["servers"].items():
        for case, runs in cases.items():
            value = interval([run["p99_us"] / 1000 for run in runs])
            short = case.replace("beside a ", "+ ").replace(" stream", "").replace(" of ", " ").replace(" at ", ", ")
            groups.append((f"{name} {short}", [(name, value)]))
    return "p99 of a hot client alone and beside another stream", "ms", groups, None


def beside(rows):
    take = lambda row, case: interval([turn[case]["p99"] / 1000 for turn in row["rounds"]])
    groups = [(f"{row['row']}: {case}", [("weir", take(row, case))]) for row in rows for case in ("alone", "beside")]
    return "p99 of hot chunks", "ms", groups, None


def seeks(rows):
    groups = []
    for row in rows:
        for name, found in row["servers"].items():
            value = interval(found["cpu_us_per_request"])
            groups.append((f"{name}, {row['connections']} connections", [(name, value)]))
    return "A seek in a day-long MP4: server CPU", "µs per request", groups, None


def live(rows):
    groups = []
    for row in rows:
        servers = [(label, interval([run["server_cpu_ms_per_gb"] for run in runs])) for label, runs in row["servers"].items()]
        groups.append((row["row"], servers))
    return "Live: server CPU", "ms per GB sent", groups, None


def segments(rows):
    groups = [(row["row"], best(row["servers"], "cpu_us_per_request")) for row in rows]
    return "Segments and playlists: server CPU", "µs per request", groups, None


def uploads(rows):
    groups = []
    for row in rows:
        for label, runs in row["servers"].items():
            value = interval([run["server_cpu_ms_per_gb"] for run in runs])
            groups.append((f"{row['row']}, {label}", [(label, value)]))
    return "Uploads: server CPU", "ms per GB", groups, None


def start(rows):
    return "Exec to the first byte", "ms", [(name, [(name, interval(values))]) for name, values in
                                             rows[0]["servers"].items()], None


def start_cases(rows):
    groups = []
    for case, runs in rows[0]["cases"].items():
        name = "nginx" if case.startswith("nginx") else "weir"
        groups.append((case, [(name, interval([run["first_byte_ms"] for run in runs]))]))
    return "Exec to the first byte of a chunk by time, 1,000 videos", "ms", groups, None
