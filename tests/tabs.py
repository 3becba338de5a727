"""Tabs of a real browser."""

from playwright.sync_api import expect
from waiting import PATIENCE

SIZE = {"width": 1400, "height": 1000}
expect.set_options(timeout=PATIENCE * 1000)


class Tabs:
    """Opens tabs. A test's first tab is one that is kept, as a window of its own costs a second."""

    def __init__(self, browser):
        self.browser = browser
        self.kept = None
        self.is_kept_used = False
        self.contexts = []  # of the other tabs

    def open(self, *, fresh=False, viewport=SIZE, color_scheme="light", **options):
        """A tab that notes whom it asks. fresh: it shares nothing with any tab before."""
        looks = {"viewport": viewport, "color_scheme": color_scheme}
        if fresh or options or self.is_kept_used:
            tab = self._new(**looks, **options)
            self.contexts.append(tab.context)
            return tab
        if self.kept is None or self.kept.is_closed():
            self.kept = self._new()
        self.is_kept_used = True
        self.kept.set_viewport_size(viewport)
        self.kept.emulate_media(color_scheme=color_scheme)
        self.kept.strangers.clear()
        return self.kept

    def _new(self, **options):
        context = self.browser.new_context(**{"viewport": SIZE} | options)
        context.set_default_timeout(PATIENCE * 1000)
        tab = context.new_page()
        tab.strangers = []
        tab.on("request", lambda request: tab.strangers.append(request.url))
        return tab

    def end_test(self):
        """Close all tabs but the kept one, which forgets the test."""
        for context in self.contexts:
            context.close()
        self.contexts.clear()
        if self.is_kept_used and not self.kept.is_closed():
            self.kept.unroute_all()
            self.kept.evaluate("location.replace('about:blank')")  # goto() would start a process
            self.kept.wait_for_url("about:blank")
            self.kept.mouse.move(0, 0)
            self.kept.context.clear_permissions()
        self.is_kept_used = False
