"""Union-find (Tarjan and van Leeuwen 1984, path halving): which items hang together.

Own code: scipy's connected_components takes .28 s to import, which is as long as split works.
"""


class DisjointSets:
    """Items 0 to n - 1, each in a set of its own to begin with; a set is named by its smallest item."""

    def __init__(self, num_items: int) -> None:
        self._parent = list(range(num_items))

    def find(self, item: int) -> int:
        """The name of the set that holds `item`."""
        parent = self._parent
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    def union(self, one: int, other: int) -> None:
        """Join the sets of two items."""
        one, other = self.find(one), self.find(other)
        self._parent[max(one, other)] = min(one, other)
