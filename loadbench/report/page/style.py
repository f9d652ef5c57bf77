"""How a page looks: one sheet for both grounds, for phones and for paper."""

from loadbench.report.colours import DARK, LIGHT, Palette


def _variables(palette: Palette, ground: str, raised: str, rule: str, strong: str) -> str:
    names = ("p50", "p95", "p99", "area", "asked", "limit", "ok", "error", "quiet", "text")
    given = "".join(f"--{name}:{getattr(palette, name)};" for name in names)
    return f"{given}--ground:{ground};--raised:{raised};--rule:{rule};--strong:{strong};"


_LIGHT = _variables(LIGHT, "#ffffff", "#f5f6f8", "#dfe3e8", "#0b0e12")
_DARK = _variables(DARK, "#0f1216", "#171c23", "#2a313b", "#ffffff")

_SHEET = """
*{box-sizing:border-box}
html{color-scheme:light dark;-webkit-text-size-adjust:100%}
body{margin:0;background:var(--ground);color:var(--text);
 font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;
 font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
main{max-width:1080px;margin:0 auto;padding:32px 28px 56px}
header{border-bottom:1px solid var(--rule);padding-bottom:18px;margin-bottom:24px}
h1{font-size:26px;line-height:1.25;margin:0 0 4px;color:var(--strong);font-weight:650;
 letter-spacing:-.01em}
h2{font-size:17px;line-height:1.3;margin:0 0 12px;color:var(--strong);font-weight:650}
h3{font-size:13px;line-height:1.4;margin:0 0 8px;color:var(--text);font-weight:650}
p{margin:0 0 8px}
section{margin:0 0 36px}
.facts{color:var(--quiet);margin:0}.facts span:not(:last-child)::after{content:" · "}
.eyebrow{color:var(--quiet);font-size:13px;margin:0 0 6px;display:flex;gap:14px;flex-wrap:wrap}
.quiet{color:var(--quiet)}.small{font-size:13px;line-height:1.45}
.ok{color:var(--ok)}.bad{color:var(--error)}.warn{color:var(--limit)}
.outcome{font-weight:650;margin:0 0 2px}
.verdict{font-size:20px;line-height:1.4;color:var(--strong);margin:0 0 12px;font-weight:550;
 letter-spacing:-.005em}
ul.plain{list-style:none;margin:0;padding:0}
ul.plain li{padding:2px 0 2px 22px;text-indent:-22px}
ul.plain li>*{text-indent:0}
.sign{display:inline-block;width:22px;text-indent:0;font-weight:650}
.apart{margin-top:18px}
.tiles{display:grid;grid-template-columns:repeat(4,1fr);gap:1px;background:var(--rule);
 border:1px solid var(--rule);border-radius:8px;overflow:hidden}
.below{margin-top:10px}
.tile{background:var(--ground);padding:13px 16px 12px;min-width:0}
.tile .name{color:var(--quiet);font-size:13px}
.tile .value{font-size:25px;line-height:1.25;font-weight:600;color:var(--strong);
 letter-spacing:-.015em;white-space:nowrap}
.tile .value .unit{font-size:14px;font-weight:450;color:var(--quiet);letter-spacing:0}
.tile .around{font-size:12.5px;line-height:1.4;color:var(--quiet)}
.tile .around b{color:var(--text);font-weight:550}
figure{margin:0 0 20px;min-width:0}
figcaption{display:flex;flex-wrap:wrap;gap:2px 16px;align-items:baseline;font-size:13px;
 color:var(--quiet);margin-bottom:2px}
figcaption h3{margin:0;color:var(--strong)}
.key{white-space:nowrap}.key b{color:var(--text);font-weight:600}
.key i{display:inline-block;width:11px;height:11px;margin-right:5px;vertical-align:-1px;
 border-radius:2px}
.key i.stroke{height:0;border-top:2px solid;border-radius:0;vertical-align:4px}
.key i.dashed{height:0;border-top:2px dashed;border-radius:0;vertical-align:4px}
i.p50{background:var(--p50)}i.p95{background:var(--p95)}i.p99{background:var(--p99)}
i.area{background:var(--area)}i.failed{background:var(--error)}i.over{background:var(--p99)}
i.asked{border-color:var(--asked)!important}i.limit{border-color:var(--limit)!important}
i.whisker{border-color:var(--text)!important}
h1.break{font-size:21px;border-top:1px solid var(--rule);padding-top:26px;margin-top:8px}
.two figure,.three figure{margin-bottom:4px}.scroll+ul{margin-top:8px}
.two,.three{display:grid;gap:8px 36px}
.two{grid-template-columns:repeat(2,minmax(0,1fr))}
.three{grid-template-columns:repeat(3,minmax(0,1fr))}
svg{display:block}
svg.chart{overflow:visible;width:calc(100% - 62px);margin:24px 16px 26px 46px}
svg.chart.joined{margin-bottom:12px}.joined+svg.chart{margin-top:0}
.chart text{font-size:11.5px;fill:var(--quiet)}
.chart .y{text-anchor:end}.chart .x{text-anchor:middle}
.grid{stroke:var(--rule);stroke-width:1}.base{stroke:var(--quiet);stroke-width:1;opacity:.7}
path.p50,rect.p50{fill:var(--p50)}path.p95,rect.p95{fill:var(--p95)}
path.p99,rect.p99{fill:var(--p99)}.area{fill:var(--area)}.over{fill:var(--p99)}
.failed{fill:var(--error)}.beyond{fill:var(--error)}.hit{fill:transparent}
.hit:hover{fill:var(--text);opacity:.12}
path.line{fill:none;stroke-width:1.8;vector-effect:non-scaling-stroke;stroke-linejoin:round}
.line.asked{stroke:var(--asked);stroke-width:1.6}.line.p50{stroke:var(--area)}
.line.p95{stroke:var(--p95)}.line.p99{stroke:var(--p99)}.line.main{stroke:var(--p95)}
.line.run0{stroke:var(--p95)}.line.run1{stroke:var(--p99);stroke-dasharray:7 3}
.line.run2{stroke:var(--limit);stroke-dasharray:2 3}
.line.run3{stroke:var(--ok);stroke-dasharray:9 3 2 3}.line.run4{stroke:var(--quiet)}
.line.run5{stroke:var(--area);stroke-dasharray:4 4}
.limit{stroke:var(--limit);stroke-width:1.4;stroke-dasharray:5 4}
.chart .limit-text{fill:var(--limit);text-anchor:end}
.chart .limit-text,.chart .knee-text,.chart .end,.chart .lost-text{paint-order:stroke;
 stroke:var(--ground);stroke-width:4px;stroke-linejoin:round}
.moment{stroke:var(--quiet);stroke-width:1;stroke-dasharray:1 3}
.moment.alert{stroke:var(--limit)}
.chart .sign{font-size:11px;text-anchor:middle;fill:var(--quiet)}
.chart .sign.alert{fill:var(--limit)}.chart .sign.ended{fill:var(--ok)}
.whisker{stroke:var(--text);stroke-width:1.6}
.lost{fill:var(--error);opacity:.13}.chart .lost-text{fill:var(--error);text-anchor:end}
.dot{stroke:var(--ground);stroke-width:1.5}.dot.p50{fill:var(--area)}.dot.p95{fill:var(--p95)}
.dot.p99{fill:var(--p99)}
.knee{stroke:var(--limit);stroke-width:1.6;fill:none}line.knee{stroke-dasharray:2 3}
.chart .end{text-anchor:end;fill:var(--text);font-weight:600}
.chart .knee-text{fill:var(--limit);text-anchor:end;font-weight:600}
svg.bar,svg.stack{width:100%}svg.bar{min-width:60px;border-radius:2px}
.rail{fill:var(--rule);opacity:.55}svg.stack{border-radius:3px}
.piece.queue,i.queue{fill:var(--p99);background-color:var(--p99)}
.piece.wait,i.wait{fill:var(--limit);background-color:var(--limit)}
.piece.compute,i.compute{fill:var(--p95);background-color:var(--p95)}
.piece.network,i.network{fill:var(--rule);background-color:var(--rule)}
.piece.late,i.late{fill:var(--quiet);background-color:var(--quiet)}
.hatch{stroke:var(--ground);stroke-width:1.3;opacity:.45;fill:none}
.defs{position:absolute}svg.swatch{display:inline-block;margin-right:5px;vertical-align:-1px;
 border-radius:2px}
.way{display:grid;grid-template-columns:120px minmax(0,1fr);gap:4px 18px;align-items:start;
 margin:0 0 14px}
.way .who{line-height:22px}.way .keys{display:flex;flex-wrap:wrap;gap:0 16px;font-size:13px;
 color:var(--quiet);margin-top:3px}
.scroll{overflow-x:auto;max-width:100%}
table{border-collapse:collapse;width:100%;font-size:13.5px;line-height:1.4}
th,td{padding:5px 0 5px 16px;text-align:right;border-bottom:1px solid var(--rule);
 vertical-align:top;overflow-wrap:normal}
th:first-child,td:first-child{padding-left:0}
th{color:var(--quiet);font-weight:500;white-space:nowrap;vertical-align:bottom}
td.left,th.left{text-align:left}td.wide{min-width:180px;overflow-wrap:anywhere}
td.nowrap{white-space:nowrap}td.fill{width:45%;vertical-align:middle}
tr.total td{font-weight:600;color:var(--strong)}tr:last-child td{border-bottom:0}
dl{display:grid;grid-template-columns:130px minmax(0,1fr);gap:5px 18px;margin:0}
dt{color:var(--quiet)}dd{margin:0}
code,pre{font:12.5px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
pre{background:var(--raised);border:1px solid var(--rule);border-radius:6px;padding:12px 14px;
 margin:8px 0 0;overflow-x:auto;max-height:420px;overflow-wrap:normal}pre.page{max-height:none}
details{margin:8px 0 0}summary{cursor:pointer;color:var(--quiet);font-size:13px}
summary:hover{color:var(--text)}
footer{color:var(--quiet);font-size:12.5px;border-top:1px solid var(--rule);padding-top:14px}
@media screen and (max-width:760px){
 main{padding:20px 16px 40px}h1{font-size:21px}.verdict{font-size:18px}
 .tiles{grid-template-columns:repeat(2,1fr)}.two,.three{grid-template-columns:minmax(0,1fr)}
 .tile{padding:11px 12px}.tile .value{font-size:22px}
 .chart .x.odd{display:none}.way{grid-template-columns:minmax(0,1fr)}
 svg.chart{width:calc(100% - 52px);margin-left:40px;margin-right:12px}
 dl{grid-template-columns:minmax(0,1fr);gap:0}dd{margin-bottom:8px}td.fill{width:32%}
}
@media screen and (prefers-color-scheme:dark){:root{DARK}}
@page{size:A4;margin:12mm 11mm}
@media print{
 body{print-color-adjust:exact;-webkit-print-color-adjust:exact}
 main{max-width:none;padding:0;zoom:.77}section{margin-bottom:22px}header{margin-bottom:16px}
 figure,tr,.way,.tiles,li,.three{break-inside:avoid}h1,h2,h3,figcaption{break-after:avoid}
 figure{margin-bottom:10px}p,li{orphans:3;widows:3}
 details:not([open]){display:none}pre{max-height:none;white-space:pre-wrap;columns:2}
 pre.page{columns:1}
 .scroll{overflow:visible}
}
"""


def sheet() -> str:
    """The whole style: light by default and on paper, dark where the reader prefers it."""
    return f":root{{{_LIGHT}}}" + _SHEET.replace("DARK", _DARK).replace("\n", "")
