"""axe-core on the page: every tab, with all its sections open, before a run and after it, in both themes."""

from pathlib import Path

import axe_playwright_python
import pytest
from browser import browser, examples, needs_chromium, open_tab, result, url, visit  # noqa: F401  (fixtures)

pytestmark = needs_chromium
AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js")
# What Gradio 6.31 writes itself and has no setting for: rule -> elements
GRADIOS_OWN = {
    # its footer, and galleries: the caption of a picture is its alternative text, too
    "image-redundant-alt": "footer img, .gallery img, .thumbnail-item img, .gallery-item img",
    # the sign for "no picture yet": a div with a label
    "aria-prohibited-attr": "div.empty[aria-label='Empty value']",
}
FOUND = """async own => {
    const {violations} = await axe.run(document, {resultTypes: ["violations"]});
    return violations.flatMap(({id, help, nodes}) => nodes
        .filter(({target}) => !own[id] || !document.querySelector(target.at(-1))?.matches(own[id]))
        .map(({html, failureSummary}) => `${id}: ${help}: ${html.slice(0, 300)}: ${failureSummary}`));
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_of_our_own_is_found(visit, url, scheme):  # noqa: F811
    page = visit(url, viewport={"width": 1280, "height": 900}, color_scheme=scheme)
    page.add_script_tag(path=AXE)
    # Colours that are fading would be measured in between
    page.add_style_tag(
        content="*, ::before, ::after { transition: none !important; animation: none !important }"
    )
    page.click("#run")
    assert result(page) == [128, 128]
    names = page.get_by_role("tab").all_inner_texts()
    assert len(names) >= 5
    for name in names:
        open_tab(page, name)
        page.wait_for_timeout(500)  # what is loaded when a tab is opened for the first time
        while closed := page.locator("button.label-wrap:not(.open):visible").element_handles():
            for section in closed:  # with more of them inside
                section.click()
            page.wait_for_timeout(500)
        assert page.evaluate(FOUND, GRADIOS_OWN) == [], name
    page.evaluate("document.querySelector('#run').parentElement.append(document.createElement('button'))")
    open_tab(page, names[0])
    assert len(page.evaluate(FOUND, GRADIOS_OWN)) == 1  # it would be found
