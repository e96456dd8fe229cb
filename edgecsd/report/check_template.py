"""The jinja2 template of a check's page: the report's style, the verdict first; no script, nothing from outside."""

from edgecsd.report.parts import page

_STYLE = """
.verdict { border-radius: 10px; padding: .8rem 1rem; margin: .6rem 0 1rem; color: var(--paper); font-size: 1.15rem;
  font-weight: 700; background: var(--neutral); overflow-wrap: anywhere; }
.verdict.passed { background: var(--right); } .verdict.failed { background: var(--wrong); }
.told { padding: 0; list-style: none; }
.told li { border-left: 4px solid var(--neutral); padding: .1rem 0 .1rem .8rem; margin: .7rem 0;
  overflow-wrap: anywhere; }
.told li.failed { border-color: var(--wrong); }
.said { white-space: nowrap; }
td.passed { color: var(--right); } td.failed { color: var(--wrong); font-weight: 700; }
table { width: 100%; } td:first-child { overflow-wrap: break-word; }
"""

CHECK_PAGE = page(
    """<header>
<h1>{{ page.title }}</h1>
<p class="verdict {{ page.verdict }}">{{ page.words }}</p>
</header>
<main>
{% if page.told %}
<ul class="told">
{% for gate in page.told %}
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
</section>
<section>
<h2>All gates</h2>
<div class="scroll"><table>
<thead><tr><th scope="col">gate</th><th scope="col">measured</th><th scope="col">needed</th><th scope="col"></th></tr>
</thead>
<tbody>
{% for gate in page.gates %}
<tr><td>{{ gate.name }}</td>{{ cell(gate.measured()) }}
<td class="said">{{ gate.needed() }}</td><td class="{{ gate.verdict }}">{{ gate.verdict }}</td></tr>
{% endfor %}
</tbody>
</table></div>
</section>
<section>
<h2>Over the queries</h2>
<div class="figures">{% for figure in page.distributions %}{{ draw(figure) }}{% endfor %}</div>
</section>
{% if page.cards %}
<section>
<h2>What got worst</h2>
<p class="muted">{{ page.cards_note }}</p>
{{ draw_legend(page.legend) }}
<div class="cards">
{% for card in page.cards %}
{{ draw_card(card, "should have been found (gallery model)", "was found") }}
{% endfor %}
</div>
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
