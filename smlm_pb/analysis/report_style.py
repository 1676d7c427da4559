"""The look of a report: light, dark and on paper."""

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #f6f7f9; --card: #ffffff; --ink: #1c2430; --muted: #5d6b7e; --rule: #dfe4ea;
  --first: #1668b8; --second: #d1571f; --third: #2a8a57;
  --warn-ink: #7a4a00; --warn: #fff4dc; --warn-rule: #efc667;
  --good-ink: #17603a; --good: #e6f5ec; --good-rule: #9ad3b2;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #12161c; --card: #1a2028; --ink: #e6eaf0; --muted: #94a1b3; --rule: #2e3744;
    --first: #5aa9f0; --second: #f08a55; --third: #62c792;
    --warn-ink: #f5d48a; --warn: #33290f; --warn-rule: #6f5716;
    --good-ink: #9be0b9; --good: #12291c; --good-rule: #2b5c40;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif;
}
main { max-width: 1160px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 44px 0 4px; }
h3 { font-size: 1rem; margin: 0 0 2px; }
p { margin: 4px 0 12px; max-width: 76ch; }
.lead { color: var(--muted); margin: 0 0 20px; max-width: none; }
.hint { color: var(--muted); font-size: .9rem; }
.notice { border: 1px solid; border-radius: 10px; padding: 10px 16px; margin: 0 0 20px; }
.notice ul { margin: 4px 0; padding-left: 1.2em; }
.warn { background: var(--warn); border-color: var(--warn-rule); color: var(--warn-ink); }
.good { background: var(--good); border-color: var(--good-rule); color: var(--good-ink); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(165px, 1fr)); gap: 12px; margin: 0 0 8px; }
.tile { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 10px 14px; }
.tile b { display: block; font-size: 1.5rem; font-weight: 600; line-height: 1.25; font-variant-numeric: tabular-nums; }
.tile b small { font-size: .9rem; font-weight: 400; color: var(--muted); }
.tile span { font-size: .86rem; color: var(--muted); display: block; line-height: 1.35; }
.grid { display: grid; gap: 16px; grid-template-columns: repeat(auto-fit, minmax(min(330px, 100%), 1fr)); }
.grid { margin: 12px 0; }
.grid.pair { grid-template-columns: repeat(auto-fit, minmax(min(430px, 100%), 1fr)); }
.grid.single { grid-template-columns: minmax(0, 720px); justify-content: center; }
figure {
  margin: 0; background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 12px 14px;
  break-inside: avoid; display: flex; flex-direction: column;
}
figure svg { display: block; width: 100%; height: auto; }
figure svg text { font-family: inherit; }
figcaption { color: var(--muted); font-size: .87rem; line-height: 1.45; margin-top: 8px; }
figcaption b { color: var(--ink); font-weight: 600; }
svg.picture { background: #000; border-radius: 4px; }
svg.picture .box { fill: none; stroke: #fff; stroke-width: 2px; vector-effect: non-scaling-stroke; }
svg.picture .box { stroke-dasharray: 6 4; }
svg.picture .found { fill: none; stroke: #ffb000; stroke-width: 1.6px; vector-effect: non-scaling-stroke; }
svg.picture .true { fill: none; stroke: #3fd0ff; stroke-width: 1.6px; vector-effect: non-scaling-stroke; }
svg.picture .merged { fill: none; stroke: #fff; stroke-width: 1.4px; vector-effect: non-scaling-stroke; }
.key-found { color: #b97e00; font-weight: 600; } .key-true { color: #0b86b0; font-weight: 600; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .93rem; margin: 8px 0; }
th, td { text-align: right; padding: 5px 12px; border-bottom: 1px solid var(--rule); vertical-align: top; }
th, td { white-space: nowrap; }
th { font-weight: 600; } thead th { border-bottom: 2px solid var(--rule); }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
table.plain td { white-space: normal; text-align: left; overflow-wrap: anywhere; }
table.plain th { text-align: left; }
ol.steps { padding-left: 1.4em; margin: 8px 0; } ol.steps li { margin: 0 0 14px; break-inside: avoid; }
code, pre { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: .85rem; }
pre {
  background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 12px 14px; overflow-x: auto;
  white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.4;
}
summary { cursor: pointer; color: var(--first); }
footer { color: var(--muted); font-size: .87rem; margin-top: 48px; padding-top: 12px; }
footer { border-top: 1px solid var(--rule); }
@media print {
  :root {
    color-scheme: light;
    --paper: #fff; --card: #fff; --ink: #111; --muted: #444; --rule: #ccc;
    --first: #1668b8; --second: #c04a12; --third: #20774a;
    --warn-ink: #5c3700; --warn: #fff; --warn-rule: #b98a1c; --good-ink: #17603a; --good: #fff; --good-rule: #7fb898;
  }
  @page { margin: 14mm; }
  body { font-size: 9pt; line-height: 1.4; }
  h1 { font-size: 17pt; } h2 { font-size: 12.5pt; }
  .tile b { font-size: 12.5pt; } .tile b small { font-size: 8.5pt; }
  table { font-size: 8pt; } th, td { padding: 3px 6px; } .scroll { overflow: visible; }
  p { max-width: none; } .hint, figcaption { font-size: 8pt; } h3 { font-size: 9.5pt; }
  main { max-width: none; padding: 0; }
  h2, h2 + p { break-after: avoid; } h2 { margin-top: 18px; }
  .grid { grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 8px; }
  .grid.pair { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .tiles { grid-template-columns: repeat(5, 1fr); gap: 6px; }
  figure { padding: 6px 8px; }
  svg.picture, .notice, .tile { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
  details:not([open]) { display: none; }
}
"""
