"""The arguments of a call as a tree: found by value, replaced leaf by leaf."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

Path = tuple[Any, ...]


def leaves(tree: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """(path, leaf) for everything in nested lists, tuples and dicts."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, (*path, key))
    elif isinstance(tree, (list, tuple)):
        for key, value in enumerate(tree):
            yield from leaves(value, (*path, key))
    else:
        yield path, tree


def at(tree: Any, path: Path) -> Any:
    """The part of a tree at a path, None where there is none."""
    for key in path:
        if isinstance(tree, dict):
            tree = tree.get(key)
        elif isinstance(tree, (list, tuple)) and isinstance(key, int) and key < len(tree):
            tree = tree[key]
        else:
            return None
    return tree


def rebuilt(tree: Any, new: dict[Path, Any], path: Path = ()) -> Any:
    """A copy of a tree with other values at some paths.

    Lists and dicts are copied all the way down: models take things out of what they are given
    (T2I adapters' features), which the pipeline's next call of them still needs.
    """
    if path in new:
        return new[path]
    if type(tree) is dict:
        return {key: rebuilt(value, new, (*path, key)) for key, value in tree.items()}
    if isinstance(tree, dict) and any(changed[: len(path)] == path for changed in new):
        # A model's output class is a dict with fields, made from them.
        return type(tree)(**{key: rebuilt(value, new, (*path, key)) for key, value in tree.items()})
    if type(tree) in (list, tuple):
        return type(tree)(rebuilt(value, new, (*path, key)) for key, value in enumerate(tree))
    return tree
