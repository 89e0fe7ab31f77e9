"""The frame of the report: a quiet page, its style sheet, and its tables."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

__all__ = ["ShownPage", "page", "rows_of"]

HEIGHT = 640  # pixels of a page in a notebook, which scrolls inside

STYLE = """
:root{color-scheme:light dark;--page:#fdfdfc;--ink:#1d2126;--soft:#626a73;--rule:#e3e5e8;--blue:#2f6399;
--fill:rgba(47,99,153,.13);--amber:#b45f06;--red:#b3261e}
@media (prefers-color-scheme:dark){:root{--page:#15181c;--ink:#e4e6e8;--soft:#9aa3ad;--rule:#2c3239;--blue:#7db2e3;
--fill:rgba(125,178,227,.16);--amber:#e3a15c;--red:#f08a80}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif;
font-variant-numeric:tabular-nums;-webkit-text-size-adjust:100%}
main{max-width:1120px;margin:0 auto;padding:clamp(20px,4vw,56px) clamp(16px,4vw,40px) 56px}
h1{font-size:28px;line-height:1.2;font-weight:600;letter-spacing:-.01em;margin:0;overflow-wrap:anywhere}
h2{font-size:17px;font-weight:600;margin:0 0 16px}
header p{margin:6px 0 0;color:var(--soft)}
section{margin-top:40px;padding-top:20px;border-top:1px solid var(--rule)}
dl{margin:0}dd{margin:0}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(104px,1fr));gap:20px 16px;margin-top:32px}
.figures dd{font-size:28px;line-height:1.15;font-weight:600;letter-spacing:-.01em}
.figures dt{color:var(--soft);font-size:13px;margin-top:4px}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,400px),1fr));gap:32px 48px}
figure{margin:0;min-width:0}
figcaption{font-size:14px;font-weight:600;margin-bottom:8px}
figcaption span{font-weight:400;color:var(--soft);margin-left:4px}
figure p,.legend{margin:6px 0 0;font-size:13px;color:var(--soft)}
.picture{display:block;margin-left:52px;width:calc(100% - 52px);overflow:visible}
.picture text{font-size:12px;fill:var(--soft);font-family:inherit}
.picture .label{fill:var(--ink);paint-order:stroke;stroke:var(--page);stroke-width:4px;stroke-linejoin:round}
.grid{stroke:var(--rule)}.axis{stroke:var(--soft);stroke-opacity:.6}
.curve,.limit{fill:none;stroke:var(--blue);stroke-width:1.75;vector-effect:non-scaling-stroke;stroke-linejoin:round}
.limit{stroke:var(--ink);stroke-width:1.25;stroke-dasharray:5 4}
.area{fill:var(--fill)}.dot{fill:var(--blue)}
.mark{stroke:var(--amber);stroke-width:2}
.bar{fill:var(--blue)}.bar.refused{fill:var(--amber)}.bar.failed{fill:var(--red)}
.legend i{display:inline-block;width:10px;height:10px;margin:0 6px 0 0}
.legend span{display:inline-block;margin-right:16px}
.legend .refused{background:var(--amber)}.legend .failed{background:var(--red)}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:14px}
caption{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
th,td{padding:7px 0 7px 20px;text-align:right;white-space:nowrap;border-bottom:1px solid var(--rule)}
th:first-child,td:first-child{padding-left:0;text-align:left}
thead th{font-weight:400;font-size:13px;color:var(--soft);vertical-align:bottom}
tbody th{font-weight:600;white-space:normal;overflow-wrap:anywhere;min-width:130px}
.last td:last-child,.last thead th:last-child{text-align:left;width:26%;min-width:120px}
.bars{display:flex;height:10px}.bars i{display:block;min-width:1px}.bars .in{background:var(--blue)}
.bars .out{background:var(--blue);opacity:.45}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,400px),1fr));gap:0 48px;font-size:14px}
.facts div{display:flex;justify-content:space-between;gap:24px;padding:7px 0;border-bottom:1px solid var(--rule)}
.facts dt{color:var(--soft)}.facts dd{text-align:right;overflow-wrap:anywhere}
footer{margin-top:40px;color:var(--soft);font-size:13px}
@media print{section{break-inside:avoid}}
"""


class ShownPage(str):
    """A page as text, which a notebook shows as the page; its repr is a line, since nobody reads 30 kB of HTML."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<a page of {len(self):,} characters of HTML; report(path) writes it to a file>"

    def _repr_html_(self) -> str:
        return f'<iframe srcdoc="{escape(self)}" style="width:100%;height:{HEIGHT}px;border:0"></iframe>'


def page(title: str, subtitle: str, body: str) -> str:
    """One whole page; `body` is HTML already, the rest is text."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<header><h1>{escape(title)}</h1><p>{escape(subtitle)}</p></header>\n{body}\n"
        "<footer>Made by ratelimited-llm. Rates are of the last 60 seconds; latency is from dispatch to answer, "
        "without the wait in the queue.</footer>\n</main>\n</body>\n</html>\n"
    )


def rows_of(heads: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str, raw_last: bool = False) -> str:
    """A table whose first column names its rows; with `raw_last` the last cells are HTML already."""
    top = "".join(f'<th scope="col">{escape(head)}</th>' for head in heads)
    body = "".join(_row(row, raw_last) for row in rows)
    css = ' class="last"' if raw_last else ""
    return (
        f'<div class="scroll"><table{css}><caption>{escape(caption)}</caption>'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _row(row: Sequence[str], raw_last: bool) -> str:
    cells = [f'<th scope="row">{escape(row[0])}</th>']
    for index, value in enumerate(row[1:], 2):
        cells.append(f"<td>{value if raw_last and index == len(row) else escape(value)}</td>")
    return f"<tr>{''.join(cells)}</tr>"
