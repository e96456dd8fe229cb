"""The jinja2 template of a check's page: the report's style, the verdict first; no script, nothing from outside."""

from edgecsd.report.drawing.parts import page

_STYLE = """
.verdict { border-radius: 10px; padding: .8rem 1rem; margin: .6rem 0 1rem; color: var(--paper); font-size: 1.15rem;
  font-weight: 700; background: var(--neutral); overflow-wrap: anywhere; }
.verdict.undecided { background: var(--muted); }
.verdict.passed { background: var(--right); } .verdict.failed { background: var(--wrong); }
.gates { padding: 0; list-style: none; }
.gates li { border-left: 4px solid var(--neutral); padding: .1rem 0 .1rem .8rem; margin: .7rem 0;
  overflow-wrap: anywhere; }
.gates li.failed { border-color: var(--wrong); }
.said { white-space: nowrap; }
td.passed { color: var(--right); } td.failed { color: var(--wrong); font-weight: 700; }
p, .about, .stacked td:first-child { overflow-wrap: anywhere; }
h3.group { margin: 1.4rem 0 .2rem; }
.stacked th { white-space: nowrap; }
.about { display: block; color: var(--muted); font-size: .8rem; }
table { width: 100%; } td:first-child { overflow-wrap: break-word; }
@media (min-width: 70rem) {
  .cards, .strip { grid-template-columns: repeat(3, minmax(0, 1fr)); }
  .figures figure:last-child:nth-child(odd) { grid-column: 1 / -1; display: grid; gap: 0 1.2rem; align-items: center;
    grid-template-columns: 34rem minmax(0, 1fr); }
  .figures figure:last-child:nth-child(odd) h3 { grid-column: 1 / -1; }
}
@media (max-width: 30rem) {
  td .interval { white-space: normal; width: min-content; margin-left: auto; }
  .stacked thead { display: none; }
  .stacked tr { display: flex; flex-wrap: wrap; gap: 0 .9rem; align-items: baseline; padding: .35rem 0;
    border-bottom: 1px solid var(--rule); }
  .stacked td { order: 1; border: 0; padding: 0; text-align: left; font-size: .82rem; }
  .stacked td:first-child { order: 0; flex: 1 0 calc(100% - 5.5rem); font-size: .88rem; }
  .stacked td[data-name]::before { content: attr(data-name) " "; color: var(--muted); }
  .stacked td .interval { display: inline; white-space: nowrap; font-size: .75rem; }
  .stacked td.result { order: 0; flex: 0 0 4.6rem; text-align: right; }
}
"""

CHECK_PAGE = page(
    """{% macro named(name, text) %}
{% set parts = text.split(' [', 1) %}
<td class="said" data-name="{{ name }}">{{ parts[0] }}
{%- if parts[1] is defined %} <span class="interval">[{{ parts[1] }}</span>{% endif %}</td>
{% endmacro %}
<header>
<h1>{{ page.title }}</h1>
<p class="verdict {{ page.verdict }}">{{ page.words }}</p>
</header>
<main>
{% if page.open_gates %}
<ul class="gates">
{% for gate in page.open_gates %}
<li class="{{ gate.verdict }}"><b>{{ gate.name }}</b>: <span class="said">{{ gate.measured() }}</span>,
needed <span class="said">{{ gate.needed() }}</span><br>{{ gate.message }}</li>
{% endfor %}
</ul>
{% endif %}
<section>
<h2>Where it is lost</h2>
{{ draw(page.waterfall) }}
{{ table(page.links) }}
{{ draw_facts(page.link_texts) }}
{% for note in page.notes %}<p class="muted">{{ note }}</p>{% endfor %}
{% if page.findings %}
<h3 class="group">What was found about it</h3>
{{ draw_facts(page.findings) }}
{% endif %}
</section>
<section>
<h2>All gates</h2>
<div class="scroll"><table class="stacked">
<thead><tr><th scope="col">gate</th><th scope="col">measured</th><th scope="col">needed</th><th scope="col">verdict</th>
</tr></thead>
<tbody>
{% for gate in page.gates %}
<tr><td>{{ gate.name }}</td>{{ named("measured", gate.measured()) }}{{ named("needed", gate.needed()) }}
<td class="result {{ gate.verdict }}">{{ gate.verdict }}</td></tr>
{% endfor %}
</tbody>
</table></div>
</section>
<section>
<h2>Over the queries</h2>
<div class="figures">{% for figure in page.figures %}{{ draw(figure) }}{% endfor %}</div>
</section>
<section>
<h2>Latency</h2>
{% if page.latency %}
<div class="scroll"><table class="stacked">
<thead><tr>{% for text in page.latency_header %}<th scope="col">{{ text }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in page.latency %}
<tr><td>{{ row.device }}<span class="about">{{ row.about }}</span>
{% if row.reason %}<span class="about">{{ row.reason }}</span>{% endif %}</td>
{% for text in row.cells %}{{ named(page.latency_header[loop.index], text) }}{% endfor %}</tr>
{% endfor %}
</tbody>
</table></div>
{% endif %}
{% if page.latency_note %}<p class="muted">{{ page.latency_note }}</p>{% endif %}
</section>
{% if page.groups %}
<section>
<h2>Worst queries of each link</h2>
<p class="muted">{{ page.cards_note }}</p>
{{ draw_legend(page.legend) }}
{% for group in page.groups %}
<h3 class="group">{{ group.title }}</h3>
<p class="muted">{{ group.text }}</p>
<div class="cards">
{% for card in group.cards %}
{{ draw_card(card, "should have been found (gallery model)", "was found") }}
{% endfor %}
</div>
{% endfor %}
</section>
{% endif %}
<section>
<h2>What was checked</h2>
{{ draw_facts(page.facts) }}
</section>
</main>
""",
    _STYLE,
)
