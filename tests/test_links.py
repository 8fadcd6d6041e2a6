"""Relative links of README and docs lead to files that exist, and their anchors to headings."""

import re

import pytest

from tests.utils import ROOT

PAGES = [*ROOT.glob('*.md'), *(ROOT / 'docs').glob('*.md'), ROOT / 'configs' / 'README.md']


def without_code(page):
    return re.sub(r'^```.*?^```', '', page.read_text(), flags=re.M | re.S)


def links(page):
    found = re.findall(r'\]\(([^()\s]+)\)', without_code(page))
    return [link for link in found if not re.match(r'\w+:', link)]


def anchors(page):
    """As GitHub names headings: lower case, letters, digits and hyphens; a repeated one gets a number."""
    found = set()
    for heading in re.findall(r'^#+ (.+)$', without_code(page), flags=re.M):
        anchor = re.sub(r'[^\w\- ]', '', heading.strip().lower()).replace(' ', '-')
        repeated = sum(name == anchor or bool(re.fullmatch(rf'{anchor}-\d+', name)) for name in found)
        found.add(f'{anchor}-{repeated}' if repeated else anchor)
    return found


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in links(page):
        path, _, anchor = link.partition('#')
        target = (page.parent / path).resolve() if path else page
        assert target.exists() and target.is_relative_to(ROOT), link
        assert not anchor or anchor in anchors(target), link


def test_the_readme_leads_to_every_page():
    linked = {(ROOT / link.partition('#')[0]).resolve() for link in links(ROOT / 'README.md')}
    assert {page for page in PAGES if page != ROOT / 'README.md'} <= linked
