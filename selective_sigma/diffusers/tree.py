"""The arguments of a call as a tree: found by value, replaced leaf by leaf."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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


def selected(tree: Any, rows: Sequence[int], count: int) -> Any:
    """A copy of a call's arguments with only these of ``count`` rows in all that is batched.

    None where it is not plain what is: a first axis, or a list, that is as long as ``count`` by chance, or a first
    axis that holds several entries for each row.
    """
    try:
        return _selected(tree, rows, count)
    except _UnclearError:
        return None


class _UnclearError(Exception):
    pass


def _selected(tree: Any, rows: Sequence[int], count: int) -> Any:
    if isinstance(tree, Tensor):
        size = tree.shape[0] if tree.ndim else 1
        if size != count and size % count == 0:
            raise _UnclearError
        return tree[list(rows)] if size == count and tree.ndim else tree
    if type(tree) is dict:
        return {key: _selected(value, rows, count) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)) and type(tree) in (list, tuple):
        tensors = [value for value in tree if isinstance(value, Tensor)]
        if len(tree) == count and not any(tensor.shape[:1] == (count,) for tensor in tensors):
            if type(tree) is list and len(tensors) == count:
                # A list of rows, each a tensor.
                return [tree[row] for row in rows]
            if type(tree) is list or len(tensors) == count:
                raise _UnclearError
        return type(tree)(_selected(value, rows, count) for value in tree)
    return tree
