"""What the HTML pages share: their style, their head, and the macros that draw tables, cards and figures."""

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --card: #f6f8fa; --ink: #1f2328; --muted: #59636e; --rule: #d8dee4;
  --right: #00785a; --wrong: #c04f00; --neutral: #98a1ab; }
@media (prefers-color-scheme: dark) { :root { --paper: #14181d; --card: #1c2128; --ink: #e6edf3; --muted: #9ea7b3;
  --rule: #343b44; --right: #2fbf93; --wrong: #ff8a3d; --neutral: #6b7480; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 74rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .5rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; padding-top: .8rem; border-top: 1px solid var(--rule); }
h3 { font-size: 1rem; margin: 0 0 .4rem; }
p { margin: .4rem 0; max-width: 46rem; }
.muted, figcaption { color: var(--muted); font-size: .88rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .35rem .7rem; border-bottom: 1px solid var(--rule); font-size: .92rem; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
td .interval { display: block; color: var(--muted); font-size: .8rem; white-space: nowrap; }
@media (max-width: 30rem) { th, td { padding: .3rem .25rem; font-size: .8rem; } td .interval { font-size: .66rem; } }
.legend { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; margin: .6rem 0; padding: 0; list-style: none;
  font-size: .88rem; }
.sign { display: inline-block; min-width: 1.4em; text-align: center; font-weight: 700; border-radius: 3px;
  color: var(--paper); }
.good > .sign, .legend .good { background: var(--right); }
.bad > .sign, .legend .bad { background: var(--wrong); }
.cards { display: grid; gap: 1rem; grid-template-columns: minmax(0, 1fr); }
@media (min-width: 70rem) { .cards { grid-template-columns: repeat(2, minmax(0, 1fr)); } }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: .8rem; }
.query { display: flex; gap: .8rem; align-items: flex-start; margin-bottom: .5rem; }
.query img { width: 96px; height: 96px; object-fit: contain; background: var(--paper); border-radius: 6px; }
.query div { min-width: 0; overflow-wrap: anywhere; font-size: .9rem; }
.tag { display: inline-block; font-size: .75rem; padding: 0 .5em; border: 1px solid var(--rule); border-radius: 1em;
  color: var(--muted); }
.who { margin: .5rem 0 .25rem; font-size: .82rem; color: var(--muted); }
.strip { display: grid; grid-template-columns: repeat(6, minmax(0, 1fr)); gap: .35rem; margin: 0; padding: 0;
  list-style: none; }
@media (max-width: 30rem) { .strip { grid-template-columns: repeat(3, minmax(0, 1fr)); } }
.strip li { position: relative; min-width: 0; border-radius: 6px; overflow: hidden; border: 3px solid var(--neutral);
  background: var(--paper); }
.strip li.good { border-color: var(--right); }
.strip li.bad { border-color: var(--wrong); border-style: dashed; }
.strip img { display: block; width: 100%; aspect-ratio: 1; object-fit: contain; }
.strip .sign { position: absolute; top: 0; left: 0; font-size: .85rem; line-height: 1.35; border-radius: 0 0 5px 0; }
.strip .name { display: block; padding: .1rem .3rem; font-size: .68rem; line-height: 1.3; color: var(--muted);
  overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.strip .only { padding: 1.6rem .3rem .3rem; white-space: normal; overflow-wrap: anywhere; color: var(--ink); }
.figures { display: grid; gap: 1.2rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }
figure { margin: 0; min-width: 0; }
figure img { display: block; width: 100%; max-width: 34rem; height: auto; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .2rem 1rem; font-size: .88rem; }
dt { color: var(--muted); } dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 30rem) { dl { grid-template-columns: minmax(0, 1fr); } dd { margin-bottom: .4rem; } }
@media print { body { max-width: none; } .card { break-inside: avoid; } }
"""

_HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{{ page.title }}</title>
<style>"""

_MACROS = """{% macro strip(name, images) %}
<p class="who">{{ name }}</p>
<ol class="strip">
{% for image in images %}
<li class="{{ 'good' if image.mark.good else 'bad' }}" title="{{ image.item }}">
{% if image.thumbnail %}
<img src="{{ image.thumbnail | jpeg }}" alt="{{ image.item }} ({{ image.mark }})">
{% endif %}
<span class="sign" aria-hidden="true">{{ image.mark.sign }}</span>
<span class="name{{ '' if image.thumbnail else ' only' }}">
{{- (image.label or image.item) if image.thumbnail else image.item }}</span>
</li>
{% endfor %}
</ol>
{% endmacro %}
{% macro draw(figure) %}
<figure>
<h3>{{ figure.title }}</h3>
<picture>
<source media="(prefers-color-scheme: dark)" srcset="{{ figure.svg | dark | svg }}">
<img src="{{ figure.svg | svg }}" alt="{{ figure.alternative }}">
</picture>
<figcaption>{{ figure.caption }}</figcaption>
</figure>
{% endmacro %}
{% macro cell(text) %}
{% set parts = text.split(' [', 1) %}
<td>{{ parts[0] }}{% if parts[1] is defined %}<span class="interval">[{{ parts[1] }}</span>{% endif %}</td>
{% endmacro %}
{% macro table(rows) %}
<div class="scroll"><table>
<thead><tr>{% for text in rows[0] %}<th scope="col">{{ text }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in rows[1:] %}
<tr>{% for text in row %}{{ cell(text) }}{% endfor %}</tr>
{% endfor %}
</tbody>
</table></div>
{% endmacro %}
{% macro draw_legend(signs) %}
<ul class="legend">
{% for sign, word, good in signs %}
<li><span class="sign {{ 'good' if good else 'bad' }}" aria-hidden="true">{{ sign }}</span> {{ word }}</li>
{% endfor %}
</ul>
{% endmacro %}
{% macro draw_card(card, first, second) %}
<article class="card">
<div class="query">
{% if card.query.thumbnail %}
<img src="{{ card.query.thumbnail | jpeg }}" alt="query {{ card.query.item }}">
{% endif %}
<div><span class="tag">{{ card.group }}</span><br>
<b>{{ card.query.label or card.query.item }}</b>
{% if card.query.label %}
<br><span class="muted">{{ card.query.item }}</span>
{% endif %}
<br>{{ card.figures }}</div>
</div>
{{ strip(first, card.by_gallery_model) }}
{{ strip(second, card.by_query_model) }}
</article>
{% endmacro %}
{% macro draw_facts(facts) %}
<dl>
{% for name, value in facts %}
<dt>{{ name }}</dt><dd>{{ value }}</dd>
{% endfor %}
</dl>
{% endmacro %}
"""


def page(body: str, style: str = "") -> str:
    """A whole template around `body`, which may use the macros; `style` is added to the common one."""
    return f"{_HEAD}{STYLE}{style}</style>\n</head>\n<body>\n{_MACROS}{body}</body>\n</html>\n"
