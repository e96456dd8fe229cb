"""The jinja2 template of the report page; no script, no address of anything outside."""

from edgecsd.report.parts import page

PAGE = page("""<header>
<h1>{{ page.title }}</h1>
<p>{{ page.summary }}</p>
</header>
<main>
{{ table(page.table) }}
<p class="muted">{{ page.table_note }}</p>
<section>
<h2>Queries and what is retrieved</h2>
<p class="muted">{{ page.cards_note }}</p>
{{ draw_legend(legend) }}
<div class="cards">
{% for card in page.cards %}
{{ draw_card(card, "gallery model", "query model") }}
{% endfor %}
</div>
</section>
{% for section in page.sections %}
<section>
<h2>{{ section.title }}</h2>
<div class="figures">
{% for figure in section.figures %}{{ draw(figure) }}{% endfor %}
</div>
</section>
{% endfor %}
<section>
<h2>How this was made</h2>
{{ draw_facts(page.facts) }}
</section>
</main>
""")
