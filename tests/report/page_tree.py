"""A page as a tree, read with the standard library's parser: enough to ask for elements, attributes and text."""

from html.parser import HTMLParser

VOID = {"meta", "br"}


class Page(HTMLParser):
    """Collects elements in order; refuses a tag that closes what is not open."""

    def __init__(self, html):
        super().__init__()
        self.open, self.elements, self.texts = [], [], []
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.texts.append((tuple(self.open), data))

    def named(self, *names):
        return [(tag, attributes) for tag, attributes in self.elements if tag in names]

    def text(self, inside=None):
        return " ".join(" ".join(data for path, data in self.texts if inside is None or inside in path).split())
