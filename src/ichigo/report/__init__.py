"""What a person reads of a run, and of several runs side by side: pages that stand alone.

``markup``      HTML that escapes whatever is put into it; the page around it, with its style inside
``charts``      curves as inline SVG; intervals and spans of time as positioned marks
``gather``      everything about one run, read from its summary, the store and the curves that the caller has
``clips``       questions to listen to, as ``data:`` URIs
``page``        the report of one run
``pairing``     the items of two evaluations, paired, or the reason why they cannot be
``comparison``  several runs: recipes, data, measures with paired tests, curves, items where they differ
``differences`` the comparison as a page and as text
``metrics``     every metric name that is kept stable, as a document

No page loads anything: no script, no font, no picture from elsewhere; a policy in its head forbids it as well.
"""
