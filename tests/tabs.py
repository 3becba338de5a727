"""Tabs of a real browser."""

from waiting import PATIENCE


def new_tab(chromium, contexts, **options):
    """A tab of its own context, which is added to those to close; it notes whom it asks."""
    context = chromium.new_context(**{"viewport": {"width": 1400, "height": 1000}} | options)
    context.set_default_timeout(PATIENCE * 1000)
    contexts.append(context)
    tab = context.new_page()
    tab.strangers = []
    tab.on("request", lambda request: tab.strangers.append(request.url))
    return tab
