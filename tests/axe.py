"""What axe finds wrong with a page."""

from axe_playwright_python.base import AXE_SCRIPT
from waiting import wait_for

COLOURS = ["color-contrast", "link-in-text-block"]  # the rules that look at colours
AT_REST = "document.getAnimations().every((one) => one.playState !== 'running')"
RUN = "async (options) => (await axe.run(options)).violations"
SERIOUS = ("serious", "critical")


def wait_for_rest(tab):
    """Wait until nothing fades or moves any more."""
    wait_for(lambda: tab.evaluate(AT_REST), "the page to come to rest")


def violations(tab, scheme, *, again=False):
    """What is wrong once the page follows that colour scheme.

    again: all rules have seen the same page in another scheme, so those of colours are enough.
    """
    tab.emulate_media(color_scheme=scheme)
    wait_for_rest(tab)
    options = {"resultTypes": ["violations"]}
    if again:
        options["runOnly"] = {"type": "rule", "values": COLOURS}
    if not tab.evaluate("'axe' in window"):
        tab.evaluate(AXE_SCRIPT)
    return tab.evaluate(RUN, options)


def first_of_each(found):
    """One line for each of the violations, for a message."""
    return [f"{one['id']}: {one['nodes'][0]['html']}" for one in found]
